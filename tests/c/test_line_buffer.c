// test_line_buffer.c: line_buffer.h sentence by sentence, for lines that end with LF.
//
// The other kinds of endings are in test_line_endings.c, random use is in
// test_line_buffer_model.c, that no byte is scanned twice in test_line_buffer_scans.c, when
// a block grows or is compacted in test_byte_block.c.

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "line_cases.h"

static void
append_text(struct line_buffer *buffer, const char *text)
{
    REQUIRE(line_buffer_append(buffer, text, strlen(text)) == 0);
    CHECK(line_buffer_is_consistent(buffer));
}

static void
check_find_lf(struct line_buffer *buffer, size_t limit, enum line_status expected_status,
              size_t expected_length)
{
    check_find(buffer, LINE_ENDING_LF, limit, expected_status, expected_length, 1);
}

static void
check_content(const struct line_buffer *buffer, const char *expected, size_t length)
{
    CHECK(line_buffer_is_consistent(buffer));
    if (!CHECK_UINT(line_buffer_length(buffer), length)) {
        return;
    }
    if (length == 0) {
        CHECK_POINTER(line_buffer_data(buffer), NULL);
        CHECK_POINTER(buffer->block.bytes, NULL);
        return;
    }
    CHECK_BYTES(line_buffer_data(buffer), expected, length);
}

static void
test_init_holds_nothing_and_owns_no_block(void)
{
    struct line_buffer buffer;
    memset(&buffer, 0xa5, sizeof(buffer));
    line_buffer_init(&buffer);
    check_content(&buffer, NULL, 0);
    check_find_lf(&buffer, 1, LINE_INCOMPLETE, 0);
    check_find_lf(&buffer, SIZE_MAX, LINE_INCOMPLETE, 0);
    line_buffer_drain(&buffer, 0);
    check_content(&buffer, NULL, 0);
    line_buffer_clear(&buffer);
    check_content(&buffer, NULL, 0);
}

static void
test_append_copies_and_keeps_order(void)
{
    struct line_buffer buffer;
    char source[] = "first ";
    line_buffer_init(&buffer);
    append_text(&buffer, source);
    memset(source, 'x', sizeof(source));
    append_text(&buffer, "second");
    check_content(&buffer, "first second", 12);
    line_buffer_clear(&buffer);
}

static void
test_append_of_nothing_changes_nothing(void)
{
    struct line_buffer buffer;
    line_buffer_init(&buffer);
    CHECK_INT(line_buffer_append(&buffer, NULL, 0), 0);
    check_content(&buffer, NULL, 0);
    append_text(&buffer, "ab");
    CHECK_INT(line_buffer_append(&buffer, NULL, 0), 0);
    check_content(&buffer, "ab", 2);
    line_buffer_clear(&buffer);
}

static void
prepend_text(struct line_buffer *buffer, const char *text)
{
    REQUIRE(line_buffer_prepend(buffer, text, strlen(text)) == 0);
    CHECK(line_buffer_is_consistent(buffer));
}

static void
test_prepend_puts_bytes_in_front_of_the_search(void)
{
    struct line_buffer buffer;
    line_buffer_init(&buffer);
    prepend_text(&buffer, "cd");
    check_content(&buffer, "cd", 2);
    check_find_lf(&buffer, 100, LINE_INCOMPLETE, 0);
    prepend_text(&buffer, "ab");
    append_text(&buffer, "e\nf");
    check_find_lf(&buffer, 100, LINE_FOUND, 6);
    CHECK_INT(line_buffer_prepend(&buffer, NULL, 0), 0);
    check_find_lf(&buffer, 100, LINE_FOUND, 6);
    // Before the line feed that is known there is another one now.
    prepend_text(&buffer, "x\ny");
    check_find_lf(&buffer, 100, LINE_FOUND, 2);
    line_buffer_drain(&buffer, 2);
    check_find_lf(&buffer, 6, LINE_TOO_LONG, 0);
    check_find_lf(&buffer, 7, LINE_FOUND, 7);
    line_buffer_drain(&buffer, 7);
    // And behind what was searched in vain, when that is no longer in front.
    check_find_lf(&buffer, 100, LINE_INCOMPLETE, 0);
    prepend_text(&buffer, "\n");
    check_find_lf(&buffer, 100, LINE_FOUND, 1);
    check_content(&buffer, "\nf", 2);
    line_buffer_clear(&buffer);
}

static void
test_clear_forgets_bytes_and_search(void)
{
    struct line_buffer buffer;
    line_buffer_init(&buffer);
    append_text(&buffer, "line\n");
    check_find_lf(&buffer, 100, LINE_FOUND, 5);
    line_buffer_clear(&buffer);
    check_content(&buffer, NULL, 0);
    append_text(&buffer, "longer than before");
    check_find_lf(&buffer, 100, LINE_INCOMPLETE, 0);
    line_buffer_clear(&buffer);
    append_text(&buffer, "a\n");
    check_find_lf(&buffer, 100, LINE_FOUND, 2);
    line_buffer_clear(&buffer);
}

static void
test_reserve_then_commit_adds_what_was_written(void)
{
    struct line_buffer buffer;
    line_buffer_init(&buffer);
    char *room = line_buffer_reserve(&buffer, 1000);
    REQUIRE(room != NULL);
    memset(room, 'r', 1000);
    memcpy(room, "abc\n", 4);
    line_buffer_commit(&buffer, 4);
    check_content(&buffer, "abc\n", 4);
    check_find_lf(&buffer, 4, LINE_FOUND, 4);

    room = line_buffer_reserve(&buffer, 5000);
    REQUIRE(room != NULL);
    memset(room, 's', 5000);
    line_buffer_commit(&buffer, 5000);
    CHECK_UINT(line_buffer_length(&buffer), 5004);
    CHECK_BYTES(line_buffer_data(&buffer), "abc\nsssss", 9);
    CHECK(line_buffer_is_consistent(&buffer));
    check_find_lf(&buffer, 4, LINE_FOUND, 4);
    line_buffer_clear(&buffer);
}

static void
test_commit_of_nothing_leaves_the_buffer_as_it_was(void)
{
    struct line_buffer buffer;
    line_buffer_init(&buffer);
    REQUIRE(line_buffer_reserve(&buffer, 64) != NULL);
    line_buffer_commit(&buffer, 0);
    check_content(&buffer, NULL, 0);
    REQUIRE(line_buffer_reserve(&buffer, 0) != NULL);
    line_buffer_commit(&buffer, 0);
    check_content(&buffer, NULL, 0);
    append_text(&buffer, "kept");
    REQUIRE(line_buffer_reserve(&buffer, 0) != NULL);
    line_buffer_commit(&buffer, 0);
    check_content(&buffer, "kept", 4);
    line_buffer_clear(&buffer);
}

static void
test_limit_at_below_and_above_a_whole_line(void)
{
    struct line_buffer buffer;
    line_buffer_init(&buffer);
    append_text(&buffer, "12345\nrest");
    check_find_lf(&buffer, 5, LINE_TOO_LONG, 0);
    check_find_lf(&buffer, 6, LINE_FOUND, 6);
    check_find_lf(&buffer, 7, LINE_FOUND, 6);
    check_find_lf(&buffer, SIZE_MAX, LINE_FOUND, 6);
    check_find_lf(&buffer, 1, LINE_TOO_LONG, 0);
    check_content(&buffer, "12345\nrest", 10);
    line_buffer_clear(&buffer);
    // The other order: the line is known before the limit refuses it.
    append_text(&buffer, "12345\nrest");
    check_find_lf(&buffer, 6, LINE_FOUND, 6);
    check_find_lf(&buffer, 5, LINE_TOO_LONG, 0);
    check_find_lf(&buffer, 6, LINE_FOUND, 6);
    line_buffer_clear(&buffer);
}

static void
test_limit_at_below_and_above_an_unended_line(void)
{
    struct line_buffer buffer;
    line_buffer_init(&buffer);
    append_text(&buffer, "12345");
    check_find_lf(&buffer, 6, LINE_INCOMPLETE, 0);
    check_find_lf(&buffer, 5, LINE_INCOMPLETE, 0);
    check_find_lf(&buffer, 4, LINE_TOO_LONG, 0);
    check_find_lf(&buffer, SIZE_MAX, LINE_INCOMPLETE, 0);
    append_text(&buffer, "\n");
    check_find_lf(&buffer, 5, LINE_TOO_LONG, 0);
    check_find_lf(&buffer, 6, LINE_FOUND, 6);
    line_buffer_clear(&buffer);
}

static void
test_larger_limit_succeeds_after_too_long(void)
{
    struct line_buffer buffer;
    line_buffer_init(&buffer);
    append_text(&buffer, "a long line\nb\n");
    for (size_t limit = 1; limit < 12; limit++) {
        check_find_lf(&buffer, limit, LINE_TOO_LONG, 0);
    }
    check_content(&buffer, "a long line\nb\n", 14);
    check_find_lf(&buffer, 12, LINE_FOUND, 12);
    line_buffer_drain(&buffer, 12);
    check_find_lf(&buffer, 1, LINE_TOO_LONG, 0);
    check_find_lf(&buffer, 2, LINE_FOUND, 2);
    line_buffer_clear(&buffer);
}

static void
test_empty_lines_are_lines_of_one_byte(void)
{
    struct line_buffer buffer;
    line_buffer_init(&buffer);
    append_text(&buffer, "\n\n\nx\n");
    for (int i = 0; i < 3; i++) {
        check_find_lf(&buffer, 1, LINE_FOUND, 1);
        line_buffer_drain(&buffer, 1);
    }
    check_find_lf(&buffer, 10, LINE_FOUND, 2);
    line_buffer_drain(&buffer, 2);
    check_content(&buffer, NULL, 0);
}

static void
test_nul_and_high_bytes_are_bytes_like_others(void)
{
    static const char data[] = "\0a\0\xff\r\n\0\0\n";
    struct line_buffer buffer;
    line_buffer_init(&buffer);
    REQUIRE(line_buffer_append(&buffer, data, 9) == 0);
    check_content(&buffer, data, 9);
    check_find_lf(&buffer, 100, LINE_FOUND, 6);
    line_buffer_drain(&buffer, 6);
    check_content(&buffer, data + 6, 3);
    check_find_lf(&buffer, 100, LINE_FOUND, 3);
    line_buffer_clear(&buffer);
}

static void
test_line_in_single_bytes_is_found_with_its_last(void)
{
    struct line_buffer buffer;
    line_buffer_init(&buffer);
    for (size_t i = 0; i < 3000; i++) {
        REQUIRE(line_buffer_append(&buffer, "y", 1) == 0);
        check_find_lf(&buffer, 3001, LINE_INCOMPLETE, 0);
    }
    append_text(&buffer, "\n");
    check_find_lf(&buffer, 3000, LINE_TOO_LONG, 0);
    check_find_lf(&buffer, 3001, LINE_FOUND, 3001);
    line_buffer_clear(&buffer);
}

static void
test_huge_line(void)
{
    size_t size = (size_t)16 << 20;
    char *data = malloc(size);
    REQUIRE(data != NULL);
    memset(data, 'h', size);
    data[size - 1] = '\n';
    struct line_buffer buffer;
    line_buffer_init(&buffer);
    append_text(&buffer, "x\n");
    REQUIRE(line_buffer_append(&buffer, data, size) == 0);
    check_find_lf(&buffer, 65536, LINE_FOUND, 2);
    line_buffer_drain(&buffer, 2);
    check_find_lf(&buffer, 65536, LINE_TOO_LONG, 0);
    check_find_lf(&buffer, size - 1, LINE_TOO_LONG, 0);
    check_find_lf(&buffer, size, LINE_FOUND, size);
    check_content(&buffer, data, size);
    line_buffer_drain(&buffer, size);
    check_content(&buffer, NULL, 0);
    free(data);
}

static void
test_drain_to_every_place_of_a_found_line(void)
{
    static const char data[] = "abcd\nef\n";
    for (size_t length = 0; length <= 8; length++) {
        struct line_buffer buffer;
        line_buffer_init(&buffer);
        append_text(&buffer, data);
        check_find_lf(&buffer, 8, LINE_FOUND, 5);
        line_buffer_drain(&buffer, length);
        check_content(&buffer, data + length, 8 - length);
        if (length < 5) {
            check_find_lf(&buffer, 8, LINE_FOUND, 5 - length);
        }
        else if (length < 8) {
            check_find_lf(&buffer, 8, LINE_FOUND, 8 - length);
        }
        else {
            check_find_lf(&buffer, 8, LINE_INCOMPLETE, 0);
        }
        line_buffer_clear(&buffer);
    }
}

static void
test_drain_of_an_incomplete_line_searched_before(void)
{
    for (size_t length = 0; length <= 4; length++) {
        struct line_buffer buffer;
        line_buffer_init(&buffer);
        append_text(&buffer, "abcd");
        check_find_lf(&buffer, 100, LINE_INCOMPLETE, 0);
        line_buffer_drain(&buffer, length);
        check_content(&buffer, &"abcd"[length], 4 - length);
        append_text(&buffer, "\nx\n");
        check_find_lf(&buffer, 100, LINE_FOUND, 5 - length);
        line_buffer_clear(&buffer);
    }
}

// The path that counts: a packet of lines comes, and is taken line by line.
static void
test_packet_of_lines_ends_without_a_block(void)
{
    struct line_buffer buffer;
    line_buffer_init(&buffer);
    char packet[15 * 64];
    memset(packet, 'p', sizeof(packet));
    for (size_t i = 1; i <= 15; i++) {
        packet[i * 64 - 1] = '\n';
    }
    for (int round = 0; round < 3; round++) {
        REQUIRE(line_buffer_append(&buffer, packet, sizeof(packet)) == 0);
        for (size_t i = 0; i < 15; i++) {
            CHECK(buffer.block.bytes != NULL);
            check_find_lf(&buffer, 65536, LINE_FOUND, 64);
            line_buffer_drain(&buffer, 64);
        }
        check_content(&buffer, NULL, 0);
    }
}

static void
test_is_consistent_sees_each_broken_invariant(void)
{
    struct line_buffer good;
    line_buffer_init(&good);
    append_text(&good, "ab\ncd");
    check_find_lf(&good, 100, LINE_FOUND, 3);

    struct line_buffer bad = good;
    bad.searched = 3; // over the line feed
    CHECK(!line_buffer_is_consistent(&bad));
    bad = good;
    bad.searched = 1; // found, but not there
    CHECK(!line_buffer_is_consistent(&bad));
    bad = good;
    bad.is_end_found = false;
    CHECK(line_buffer_is_consistent(&bad));
    bad.searched = 6; // more than is held
    CHECK(!line_buffer_is_consistent(&bad));
    bad = good;
    bad.block.start = bad.block.end; // a block without bytes
    CHECK(!line_buffer_is_consistent(&bad));
    line_buffer_init(&bad);
    bad.searched = 1;
    CHECK(!line_buffer_is_consistent(&bad));
    line_buffer_init(&bad);
    bad.is_end_found = true;
    CHECK(!line_buffer_is_consistent(&bad));
    line_buffer_clear(&good);
}

// A length that can never be had is refused before any sum with it overflows.
static void
test_absurd_lengths_are_refused_with_nothing_changed(void)
{
    static const size_t lengths[] = {SIZE_MAX, SIZE_MAX - 1, SIZE_MAX / 2 + 1,
                                     (size_t)PTRDIFF_MAX - 1};
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        struct line_buffer buffer;
        line_buffer_init(&buffer);
        append_text(&buffer, "ab\n");
        check_find_lf(&buffer, 100, LINE_FOUND, 3);
        CHECK_INT(line_buffer_append(&buffer, "x", lengths[i]), -ENOMEM);
        CHECK_INT(line_buffer_prepend(&buffer, "x", lengths[i]), -ENOMEM);
        CHECK_POINTER(line_buffer_reserve(&buffer, lengths[i]), NULL);
        check_content(&buffer, "ab\n", 3);
        check_find_lf(&buffer, 100, LINE_FOUND, 3);
        line_buffer_clear(&buffer);
    }
}

#ifdef CAN_FAIL_ALLOCATIONS
enum way_in { BY_APPEND, BY_RESERVE, BY_PREPEND };

// Returns -ENOMEM if any step was refused. Each refused step is made again, after a
// look that nothing has changed.
static int
add_with_failures(struct line_buffer *buffer, const char *data, size_t length,
                  enum way_in way)
{
    struct line_buffer before = *buffer;
    if (way == BY_PREPEND) {
        if (line_buffer_prepend(buffer, data, length) == 0) {
            return 0;
        }
    }
    else if (way == BY_RESERVE) {
        char *room = line_buffer_reserve(buffer, length);
        if (room != NULL) {
            memcpy(room, data, length);
            line_buffer_commit(buffer, length);
            return 0;
        }
    }
    else if (line_buffer_append(buffer, data, length) == 0) {
        return 0;
    }
    CHECK_POINTER(buffer->block.bytes, before.block.bytes);
    CHECK_UINT(buffer->block.start, before.block.start);
    CHECK_UINT(buffer->block.end, before.block.end);
    CHECK_UINT(buffer->block.capacity, before.block.capacity);
    CHECK_UINT(buffer->searched, before.searched);
    CHECK_INT(buffer->is_end_found, before.is_end_found);
    CHECK(line_buffer_is_consistent(buffer));
    CHECK_INT(line_buffer_append(buffer, data, length), 0);
    return -ENOMEM;
}

static void
test_allocation_failure_at_each_point_changes_nothing(void)
{
    static const char data[] = "0123456789abcdefghijklmnopqrstuvwxyz\n";
    for (size_t n = 1;; n++) {
        int64_t live_before = live_allocations();
        struct line_buffer buffer;
        line_buffer_init(&buffer);
        int failures = 0;
        size_t lines = 0;
        fail_allocation_at(n);
        for (int i = 0; i < 400; i++) {
            failures += add_with_failures(&buffer, data, 37, (enum way_in)(i % 3)) != 0;
            if (i % 5 == 0) {
                check_find_lf(&buffer, 37, LINE_FOUND, 37);
                line_buffer_drain(&buffer, 37);
                lines++;
            }
        }
        bool was_hit = allow_allocations();
        CHECK_INT(failures, was_hit);
        while (line_buffer_length(&buffer) > 0) {
            check_find_lf(&buffer, 37, LINE_FOUND, 37);
            CHECK_BYTES(line_buffer_data(&buffer), data, 37);
            line_buffer_drain(&buffer, 37);
            lines++;
        }
        CHECK_UINT(lines, 400);
        CHECK_INT(live_allocations(), live_before);
        if (!was_hit) {
            CHECK(n > 5);
            break;
        }
    }
}
#endif

int
main(void)
{
    RUN(test_init_holds_nothing_and_owns_no_block);
    RUN(test_append_copies_and_keeps_order);
    RUN(test_append_of_nothing_changes_nothing);
    RUN(test_prepend_puts_bytes_in_front_of_the_search);
    RUN(test_clear_forgets_bytes_and_search);
    RUN(test_reserve_then_commit_adds_what_was_written);
    RUN(test_commit_of_nothing_leaves_the_buffer_as_it_was);
    RUN(test_limit_at_below_and_above_a_whole_line);
    RUN(test_limit_at_below_and_above_an_unended_line);
    RUN(test_larger_limit_succeeds_after_too_long);
    RUN(test_empty_lines_are_lines_of_one_byte);
    RUN(test_nul_and_high_bytes_are_bytes_like_others);
    RUN(test_line_in_single_bytes_is_found_with_its_last);
    RUN(test_huge_line);
    RUN(test_drain_to_every_place_of_a_found_line);
    RUN(test_drain_of_an_incomplete_line_searched_before);
    RUN(test_packet_of_lines_ends_without_a_block);
    RUN(test_is_consistent_sees_each_broken_invariant);
    RUN(test_absurd_lengths_are_refused_with_nothing_changed);
#ifdef CAN_FAIL_ALLOCATIONS
    RUN(test_allocation_failure_at_each_point_changes_nothing);
#endif
    return harness_finish("line_buffer");
}
