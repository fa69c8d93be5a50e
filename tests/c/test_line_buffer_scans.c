// test_line_buffer_scans.c: no byte is scanned twice. The line buffer's source is
// compiled into this program with a memchr() that counts the bytes it looked at; the
// linker then leaves the library's own copy out.

#include <string.h>

#include "harness.h"

static uint64_t scanned_bytes;
static const char *last_scan_start;

static void *
counting_memchr(const void *bytes, int value, size_t length)
{
    void *found = memchr(bytes, value, length);
    last_scan_start = bytes;
    scanned_bytes += found != NULL
                         ? (uint64_t)((const char *)found - (const char *)bytes) + 1
                         : length;
    return found;
}

#define memchr(bytes, value, length) counting_memchr(bytes, value, length)
#include "line_buffer.c"
#undef memchr

static void
append_text(struct line_buffer *buffer, const char *text)
{
    REQUIRE(line_buffer_append(buffer, text, strlen(text)) == 0);
}

// Finds, and checks how many bytes were looked at for it.
static void
check_scan(struct line_buffer *buffer, size_t limit, enum line_status expected_status,
           uint64_t expected_scanned)
{
    size_t length = 0;
    scanned_bytes = 0;
    CHECK_INT(line_buffer_find_line(buffer, limit, &length), expected_status);
    CHECK_UINT(scanned_bytes, expected_scanned);
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

static void
test_line_in_single_bytes_is_scanned_once(void)
{
    struct line_buffer buffer;
    size_t length = 0;
    line_buffer_init(&buffer);
    scanned_bytes = 0;
    for (int i = 0; i < 100000; i++) {
        append_text(&buffer, i == 99999 ? "\n" : "x");
        CHECK_INT(line_buffer_find_line(&buffer, 100000, &length),
                  i == 99999 ? LINE_FOUND : LINE_INCOMPLETE);
    }
    CHECK_UINT(scanned_bytes, 100000);
    line_buffer_clear(&buffer);
}

// Looks for a line; [drained] bytes have left the buffer before. Each scan must begin
// at or behind the place in the stream that the ones before it have reached.
static enum line_status
find_without_rescan(struct line_buffer *buffer, size_t *length, uint64_t drained,
                    uint64_t *scanned_until)
{
    scanned_bytes = 0;
    enum line_status status =
        line_buffer_find_line(buffer, 1 + (size_t)random_magnitude(12), length);
    if (scanned_bytes > 0) {
        uint64_t from = drained + (uint64_t)(last_scan_start - line_buffer_data(buffer));
        CHECK(from >= *scanned_until);
        *scanned_until = from + scanned_bytes;
    }
    return status;
}

static void
test_random_use_scans_no_byte_twice(void)
{
    struct line_buffer buffer;
    uint64_t drained = 0;
    uint64_t scanned_until = 0;
    uint64_t lines = 0;
    line_buffer_init(&buffer);
    for (int i = 0; i < 200000; i++) {
        char piece[256];
        size_t length = (size_t)random_magnitude(8);
        memset(piece, 'x', sizeof(piece));
        piece[random_below(sizeof(piece))] = '\n';
        uint64_t choice = random_below(3);
        if (choice == 0) {
            REQUIRE(line_buffer_append(&buffer, piece, length) == 0);
            continue;
        }
        if (choice == 1 && length > line_buffer_length(&buffer)) {
            length = line_buffer_length(&buffer);
        }
        if (choice == 2) {
            if (find_without_rescan(&buffer, &length, drained, &scanned_until) !=
                LINE_FOUND) {
                continue;
            }
            lines++;
        }
        line_buffer_drain(&buffer, length);
        drained += length;
    }
    CHECK(lines > 1000);
    CHECK(scanned_until > drained / 2);
    line_buffer_clear(&buffer);
}

int
main(void)
{
    RUN(test_incomplete_line_is_searched_on_where_it_was_left);
    RUN(test_found_line_is_not_searched_again);
    RUN(test_bytes_behind_the_limit_are_left_to_a_larger_one);
    RUN(test_drain_keeps_what_was_searched);
    RUN(test_line_in_single_bytes_is_scanned_once);
    RUN(test_random_use_scans_no_byte_twice);
    return harness_finish("line_buffer_scans");
}
