// test_line_buffer_scans.c: no byte is scanned twice. The line buffer's source is
// compiled into this program with searches that count the bytes they looked at; the linker
// then leaves the library's own copy out.

#include <string.h>

#include "byte_search.h"
#include "harness.h"

static uint64_t scanned_bytes;
static const char *first_scan_start;

static void
count_scan(const char *bytes, const char *found, size_t length)
{
    if (scanned_bytes == 0) {
        first_scan_start = bytes;
    }
    scanned_bytes += found != NULL ? (uint64_t)(found - bytes) + 1 : length;
}

static void *
counting_memchr(const void *bytes, int value, size_t length)
{
    void *found = memchr(bytes, value, length);
    count_scan(bytes, found, length);
    return found;
}

static const char *
counting_find_cr_or_lf(const char *bytes, size_t length)
{
    const char *found = find_cr_or_lf(bytes, length);
    count_scan(bytes, found, length);
    return found;
}

#define memchr(bytes, value, length) counting_memchr(bytes, value, length)
#define find_cr_or_lf(bytes, length) counting_find_cr_or_lf(bytes, length)
#include "line_buffer.c"
#undef memchr
#undef find_cr_or_lf

static const enum line_ending all_endings[] = {LINE_ENDING_LF, LINE_ENDING_CRLF,
                                               LINE_ENDING_CRLF_STRICT, LINE_ENDING_ANY,
                                               LINE_ENDING_NUL};
#define ENDING_COUNT (sizeof(all_endings) / sizeof(all_endings[0]))

static void
append_text(struct line_buffer *buffer, const char *text)
{
    REQUIRE(line_buffer_append(buffer, text, strlen(text)) == 0);
}

// Finds, and checks how many bytes were looked at for it.
static void
check_scan_for(struct line_buffer *buffer, enum line_ending ending, size_t limit,
               enum line_status expected_status, uint64_t expected_scanned)
{
    size_t length = 0;
    size_t ending_length = 0;
    scanned_bytes = 0;
    CHECK_INT(line_buffer_find_line(buffer, ending, limit, &length, &ending_length),
              expected_status);
    CHECK_UINT(scanned_bytes, expected_scanned);
}

static void
check_scan(struct line_buffer *buffer, size_t limit, enum line_status expected_status,
           uint64_t expected_scanned)
{
    check_scan_for(buffer, LINE_ENDING_LF, limit, expected_status, expected_scanned);
}

static void
test_incomplete_line_is_searched_on_where_it_was_left(void)
{
    struct line_buffer buffer;
    line_buffer_init(&buffer);
    append_text(&buffer, "abc");
    check_scan(&buffer, 100, LINE_INCOMPLETE, 3);
    check_scan(&buffer, 100, LINE_INCOMPLETE, 0);
    append_text(&buffer, "de");
    check_scan(&buffer, 100, LINE_INCOMPLETE, 2);
    append_text(&buffer, "f\nghi");
    check_scan(&buffer, 100, LINE_FOUND, 2);
    line_buffer_clear(&buffer);
}

static void
test_found_line_is_not_searched_again(void)
{
    struct line_buffer buffer;
    line_buffer_init(&buffer);
    append_text(&buffer, "abc\ndef");
    check_scan(&buffer, 100, LINE_FOUND, 4);
    check_scan(&buffer, 100, LINE_FOUND, 0);
    check_scan(&buffer, 3, LINE_TOO_LONG, 0);
    check_scan(&buffer, 4, LINE_FOUND, 0);
    line_buffer_drain(&buffer, 2);
    check_scan(&buffer, 100, LINE_FOUND, 0);
    line_buffer_drain(&buffer, 1);
    check_scan(&buffer, 100, LINE_FOUND, 0);
    line_buffer_drain(&buffer, 1);
    check_scan(&buffer, 100, LINE_INCOMPLETE, 3);
    line_buffer_clear(&buffer);
}

static void
test_bytes_behind_the_limit_are_left_to_a_larger_one(void)
{
    struct line_buffer buffer;
    line_buffer_init(&buffer);
    append_text(&buffer, "0123456789\nabc");
    check_scan(&buffer, 4, LINE_TOO_LONG, 4);
    check_scan(&buffer, 3, LINE_TOO_LONG, 0);
    check_scan(&buffer, 10, LINE_TOO_LONG, 6);
    check_scan(&buffer, 11, LINE_FOUND, 1);
    check_scan(&buffer, 5, LINE_TOO_LONG, 0);
    line_buffer_clear(&buffer);
}

static void
test_drain_keeps_what_was_searched(void)
{
    struct line_buffer buffer;
    line_buffer_init(&buffer);
    append_text(&buffer, "0123456789");
    check_scan(&buffer, 100, LINE_INCOMPLETE, 10);
    line_buffer_drain(&buffer, 4);
    check_scan(&buffer, 100, LINE_INCOMPLETE, 0);
    append_text(&buffer, "\n");
    check_scan(&buffer, 100, LINE_FOUND, 1);
    line_buffer_clear(&buffer);
}

// What ends a line of each kind, and what does not.
static const struct {
    const char *stuffing; // eight bytes, none of which ends a line
    const char *end;
    size_t end_length;
} kinds[ENDING_COUNT] = {
    [LINE_ENDING_LF] = {"ab\r\r\0cde", "\n", 1},
    [LINE_ENDING_CRLF] = {"ab\r\r\0cde", "\r\n", 2},
    [LINE_ENDING_CRLF_STRICT] = {"\na\n\r\r\0b\n", "\r\n", 2},
    [LINE_ENDING_ANY] = {"ab\f\v\0cde", "\r", 1},
    [LINE_ENDING_NUL] = {"ab\r\n\r\ncd", "\0", 1},
};

static void
test_line_in_single_bytes_is_scanned_once(void)
{
    for (size_t kind = 0; kind < ENDING_COUNT; kind++) {
        struct line_buffer buffer;
        size_t length = 0;
        size_t ending_length = 0;
        size_t total = 8 * 10000 + kinds[kind].end_length;
        line_buffer_init(&buffer);
        scanned_bytes = 0;
        for (size_t i = 0; i < total; i++) {
            const char *byte =
                i < 80000 ? kinds[kind].stuffing + i % 8 : kinds[kind].end + i - 80000;
            REQUIRE(line_buffer_append(&buffer, byte, 1) == 0);
            CHECK_INT(line_buffer_find_line(&buffer, all_endings[kind], total, &length,
                                            &ending_length),
                      i == total - 1 ? LINE_FOUND : LINE_INCOMPLETE);
        }
        CHECK_UINT(length, total);
        CHECK_UINT(scanned_bytes, total);
        line_buffer_clear(&buffer);
    }
}

static void
test_another_kind_of_ending_begins_anew(void)
{
    struct line_buffer buffer;
    line_buffer_init(&buffer);
    append_text(&buffer, "abcdef");
    check_scan_for(&buffer, LINE_ENDING_LF, 100, LINE_INCOMPLETE, 6);
    check_scan_for(&buffer, LINE_ENDING_ANY, 100, LINE_INCOMPLETE, 6);
    check_scan_for(&buffer, LINE_ENDING_ANY, 100, LINE_INCOMPLETE, 0);
    append_text(&buffer, "\n");
    check_scan_for(&buffer, LINE_ENDING_CRLF_STRICT, 100, LINE_INCOMPLETE, 7);
    check_scan_for(&buffer, LINE_ENDING_LF, 100, LINE_FOUND, 7);
    check_scan_for(&buffer, LINE_ENDING_NUL, 100, LINE_INCOMPLETE, 7);
    line_buffer_clear(&buffer);
}

// The LF that is left is known to end no line.
static void
test_drain_of_the_cr_is_no_reason_to_look_again(void)
{
    struct line_buffer buffer;
    line_buffer_init(&buffer);
    append_text(&buffer, "ab\r\n");
    check_scan_for(&buffer, LINE_ENDING_CRLF_STRICT, 100, LINE_FOUND, 4);
    line_buffer_drain(&buffer, 3);
    check_scan_for(&buffer, LINE_ENDING_CRLF_STRICT, 100, LINE_INCOMPLETE, 0);
    line_buffer_clear(&buffer);
}

static void
test_what_was_searched_elsewhere_is_not_searched_again(void)
{
    struct line_buffer buffer;
    size_t ending_length = 0;
    line_buffer_init(&buffer);
    append_text(&buffer, "x\n");
    check_scan_for(&buffer, LINE_ENDING_LF, 100, LINE_FOUND, 2);
    line_buffer_drain_line(&buffer, 2);
    CHECK_UINT(line_find("abc\r", 4, LINE_ENDING_CRLF_STRICT, &ending_length), 0);
    append_text(&buffer, "abc\r\nrest");
    line_buffer_note_searched(&buffer, LINE_ENDING_CRLF_STRICT, 4);
    check_scan_for(&buffer, LINE_ENDING_CRLF_STRICT, 100, LINE_FOUND, 1);
    line_buffer_clear(&buffer);
}

// CRs alone, each of which ends a line: a search for the LF that never comes would look at
// all of them for each line.
static void
test_rare_half_of_any_is_not_looked_for_alone(void)
{
    struct line_buffer buffer;
    line_buffer_init(&buffer);
    for (int i = 0; i < 1000; i++) {
        append_text(&buffer, "0123456789abcde\r");
    }
    for (int i = 0; i < 1000; i++) {
        check_scan_for(&buffer, LINE_ENDING_ANY, 65536, LINE_FOUND, 16);
        line_buffer_drain_line(&buffer, 16);
    }
    line_buffer_clear(&buffer);
}

// Looks for a line; [drained] bytes have left the buffer before. Each scan must begin
// at or behind the place in the stream that the ones before it have reached.
static enum line_status
find_without_rescan(struct line_buffer *buffer, enum line_ending ending, size_t *length,
                    uint64_t *drained, uint64_t *scanned_until)
{
    size_t ending_length;
    size_t held = line_buffer_length(buffer);
    scanned_bytes = 0;
    enum line_status status = line_buffer_find_line(
        buffer, ending, 1 + (size_t)random_magnitude(12), length, &ending_length);
    *drained += held - line_buffer_length(buffer); // the rest of a run
    if (scanned_bytes > 0) {
        uint64_t from =
            *drained + (uint64_t)(first_scan_start - line_buffer_data(buffer));
        CHECK(from >= *scanned_until);
        *scanned_until = from + scanned_bytes;
    }
    return status;
}

static void
use_at_random(enum line_ending ending)
{
    static const char special[] = "\r\n\0";
    struct line_buffer buffer;
    uint64_t drained = 0;
    uint64_t scanned_until = 0;
    uint64_t lines = 0;
    line_buffer_init(&buffer);
    for (int i = 0; i < 60000; i++) {
        char piece[256];
        size_t length = (size_t)random_magnitude(8);
        memset(piece, 'x', sizeof(piece));
        for (size_t at = random_below(64); at < sizeof(piece) - 1;
             at += 1 + random_below(64)) {
            piece[at] = special[random_below(3)];
            piece[at + 1] = special[random_below(3)];
        }
        uint64_t choice = random_below(3);
        if (choice == 0) {
            REQUIRE(line_buffer_append(&buffer, piece, length) == 0);
            continue;
        }
        if (choice == 1 && length > line_buffer_length(&buffer)) {
            length = line_buffer_length(&buffer);
        }
        if (choice == 2) {
            if (find_without_rescan(&buffer, ending, &length, &drained, &scanned_until) !=
                LINE_FOUND) {
                continue;
            }
            lines++;
            line_buffer_drain_line(&buffer, length);
        }
        else {
            line_buffer_drain(&buffer, length);
        }
        drained += length;
    }
    CHECK(lines > 1000);
    CHECK(scanned_until > drained / 2);
    line_buffer_clear(&buffer);
}

static void
test_random_use_scans_no_byte_twice(void)
{
    for (size_t kind = 0; kind < ENDING_COUNT; kind++) {
        use_at_random(all_endings[kind]);
    }
}

int
main(void)
{
    RUN(test_incomplete_line_is_searched_on_where_it_was_left);
    RUN(test_found_line_is_not_searched_again);
    RUN(test_bytes_behind_the_limit_are_left_to_a_larger_one);
    RUN(test_drain_keeps_what_was_searched);
    RUN(test_line_in_single_bytes_is_scanned_once);
    RUN(test_another_kind_of_ending_begins_anew);
    RUN(test_drain_of_the_cr_is_no_reason_to_look_again);
    RUN(test_what_was_searched_elsewhere_is_not_searched_again);
    RUN(test_rare_half_of_any_is_not_looked_for_alone);
    RUN(test_random_use_scans_no_byte_twice);
    return harness_finish("line_buffer_scans");
}
