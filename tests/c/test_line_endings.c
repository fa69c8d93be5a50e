// test_line_endings.c: the five kinds of endings: what ends a line and what does not, at
// each split of the stream and at each limit.
//
// Random use is tested in test_line_buffer_model.c.

#include <stdio.h>
#include <string.h>

#include "harness.h"
#include "line_cases.h"

#define ENDING_COUNT 5

static void
append(struct line_buffer *buffer, const char *data, size_t length)
{
    REQUIRE(line_buffer_append(buffer, data, length) == 0);
    CHECK(line_buffer_is_consistent(buffer));
}

// The lines of a stream as a text, each in brackets, with what is left behind them.
struct transcript {
    char text[512];
    size_t length;
};

static void
note(struct transcript *transcript, const char *data, size_t length)
{
    REQUIRE(transcript->length + length <= sizeof(transcript->text));
    if (length > 0) {
        memcpy(transcript->text + transcript->length, data, length);
        transcript->length += length;
    }
}

// Takes all lines that are there and notes them without their ends.
static void
take_lines(struct line_buffer *buffer, enum line_ending ending,
           struct transcript *transcript)
{
    size_t length;
    size_t ending_length;
    while (line_buffer_find_line(buffer, ending, 100, &length, &ending_length) ==
           LINE_FOUND) {
        CHECK(ending_length >= 1 && ending_length <= length);
        note(transcript, "[", 1);
        note(transcript, line_buffer_data(buffer), length - ending_length);
        note(transcript, "]", 1);
        line_buffer_drain_line(buffer, length);
        CHECK(line_buffer_is_consistent(buffer));
    }
}

static void
check_stream(enum line_ending ending, const char *stream, const size_t *pieces,
             const char *expected, size_t expected_length)
{
    struct line_buffer buffer;
    struct transcript transcript = {.length = 0};
    line_buffer_init(&buffer);
    for (size_t i = 0; i < 3; i++) {
        append(&buffer, stream, pieces[i]);
        stream += pieces[i];
        take_lines(&buffer, ending, &transcript);
    }
    note(&transcript, line_buffer_data(&buffer), line_buffer_length(&buffer));
    if (!CHECK_UINT(transcript.length, expected_length) ||
        !CHECK_BYTES(transcript.text, expected, expected_length)) {
        fprintf(stderr, "... ending %d, pieces of %zu, %zu and %zu bytes\n", (int)ending,
                pieces[0], pieces[1], pieces[2]);
    }
    line_buffer_clear(&buffer);
}

#define TEXT(text) text, sizeof(text) - 1

// The same stream as each kind sees it. In it are an empty line of each, a CR before a NUL, a
// CR twice before a LF, and an end without a LF.
static void
test_every_split_gives_the_same_lines(void)
{
    static const char stream[] = "a\r\nb\nc\rd\n\re\r\r\nf\0\0\r\0g\r\n\r\n\n\nh\r";
    static const struct {
        const char *text;
        size_t length;
    } expected[ENDING_COUNT] = {
        {TEXT("[a\r][b][c\rd][\re\r\r][f\0\0\r\0g\r][\r][][]h\r")},
        {TEXT("[a][b][c\rd][\re\r][f\0\0\r\0g][][][]h\r")},
        {TEXT("[a][b\nc\rd\n\re\r][f\0\0\r\0g][]\n\nh\r")},
        {TEXT("[a][b][c][d][e][f\0\0][\0g][h]")},
        {TEXT("[a\r\nb\nc\rd\n\re\r\r\nf][][\r]g\r\n\r\n\n\nh\r")},
    };
    size_t total = sizeof(stream) - 1;
    for (int ending = 0; ending < ENDING_COUNT; ending++) {
        for (size_t first = 0; first <= total; first++) {
            for (size_t second = 0; second <= total - first; second++) {
                size_t pieces[] = {first, second, total - first - second};
                check_stream((enum line_ending)ending, stream, pieces,
                             expected[ending].text, expected[ending].length);
            }
        }
    }
}

// Each kind's usual end, once more with the longest line that is allowed.
static void
test_limit_under_at_and_over_a_line_of_each_kind(void)
{
    static const struct {
        enum line_ending ending;
        const char *end;
        size_t end_length;
    } ends[] = {
        {LINE_ENDING_LF, TEXT("\n")},     {LINE_ENDING_CRLF, TEXT("\n")},
        {LINE_ENDING_CRLF, TEXT("\r\n")}, {LINE_ENDING_CRLF_STRICT, TEXT("\r\n")},
        {LINE_ENDING_ANY, TEXT("\r")},    {LINE_ENDING_NUL, TEXT("\0")},
    };
    for (size_t i = 0; i < COUNT_OF(ends); i++) {
        enum line_ending ending = ends[i].ending;
        size_t whole = 5 + ends[i].end_length;
        struct line_buffer buffer;
        line_buffer_init(&buffer);
        append(&buffer, "12345", 5);
        check_find(&buffer, ending, 4, LINE_TOO_LONG, 0, 0);
        check_find(&buffer, ending, 5, LINE_INCOMPLETE, 0, 0);
        for (size_t at = 0; at < ends[i].end_length; at++) {
            check_find(&buffer, ending, whole, LINE_INCOMPLETE, 0, 0);
            append(&buffer, ends[i].end + at, 1);
        }
        append(&buffer, "xyz", 3);
        check_find(&buffer, ending, whole - 1, LINE_TOO_LONG, 0, 0);
        check_find(&buffer, ending, 1, LINE_TOO_LONG, 0, 0);
        check_find(&buffer, ending, whole, LINE_FOUND, whole, ends[i].end_length);
        check_find(&buffer, ending, whole - 1, LINE_TOO_LONG, 0, 0);
        check_find(&buffer, ending, whole + 1, LINE_FOUND, whole, ends[i].end_length);
        check_find(&buffer, ending, SIZE_MAX, LINE_FOUND, whole, ends[i].end_length);
        line_buffer_clear(&buffer);
    }
}

static void
test_limit_cuts_a_run_and_the_rest_is_dropped(void)
{
    for (size_t limit = 4; limit <= 9; limit++) {
        struct line_buffer buffer;
        size_t length = limit < 8 ? limit : 8;
        line_buffer_init(&buffer);
        append(&buffer, "abc\r\n\r\n\nnext\n", 13);
        check_find(&buffer, LINE_ENDING_ANY, 3, LINE_TOO_LONG, 0, 0);
        check_find(&buffer, LINE_ENDING_ANY, limit, LINE_FOUND, length, length - 3);
        line_buffer_drain_line(&buffer, length);
        check_find(&buffer, LINE_ENDING_ANY, limit,
                   limit < 5 ? LINE_TOO_LONG : LINE_FOUND, 5, 1);
        CHECK_BYTES(line_buffer_data(&buffer), "next\n", 5);
        line_buffer_clear(&buffer);
    }
}

// The end of a run may be all there is, again and again.
static void
test_rest_of_a_run_is_dropped_however_late_it_comes(void)
{
    struct line_buffer buffer;
    line_buffer_init(&buffer);
    append(&buffer, "one\r", 4);
    check_find(&buffer, LINE_ENDING_ANY, 100, LINE_FOUND, 4, 1);
    line_buffer_drain_line(&buffer, 4);
    for (int i = 0; i < 3; i++) {
        check_find(&buffer, LINE_ENDING_ANY, 100, LINE_INCOMPLETE, 0, 0);
        append(&buffer, "\n\r", 2);
        check_find(&buffer, LINE_ENDING_ANY, 1, LINE_INCOMPLETE, 0, 0);
        CHECK_UINT(line_buffer_length(&buffer), 0);
        CHECK_POINTER(buffer.block.bytes, NULL);
    }
    append(&buffer, "\ntwo\n", 5);
    check_find(&buffer, LINE_ENDING_ANY, 100, LINE_FOUND, 4, 1);
    line_buffer_drain_line(&buffer, 4);
    // A byte that is of no run ends it: what follows is an ending of its own.
    append(&buffer, "x", 1);
    check_find(&buffer, LINE_ENDING_ANY, 100, LINE_INCOMPLETE, 0, 0);
    line_buffer_drain(&buffer, 1);
    append(&buffer, "\n", 1);
    check_find(&buffer, LINE_ENDING_ANY, 100, LINE_FOUND, 1, 1);
    line_buffer_clear(&buffer);
}

// Others than the next search with LINE_ENDING_ANY see what comes late of a run.
static void
test_rest_of_a_run_is_there_for_others(void)
{
    struct line_buffer buffer;
    line_buffer_init(&buffer);
    append(&buffer, "one\r", 4);
    check_find(&buffer, LINE_ENDING_ANY, 100, LINE_FOUND, 4, 1);
    line_buffer_drain_line(&buffer, 4);
    append(&buffer, "\n\n", 2);
    CHECK_UINT(line_buffer_length(&buffer), 2);
    check_find(&buffer, LINE_ENDING_LF, 100, LINE_FOUND, 1, 1);
    // Only looked at, not taken: it is of the run still.
    check_find(&buffer, LINE_ENDING_ANY, 100, LINE_INCOMPLETE, 0, 0);
    CHECK_UINT(line_buffer_length(&buffer), 0);

    append(&buffer, "\n\n", 2);
    check_find(&buffer, LINE_ENDING_LF, 100, LINE_FOUND, 1, 1);
    line_buffer_drain_line(&buffer, 1);
    check_find(&buffer, LINE_ENDING_ANY, 100, LINE_FOUND, 1, 1);
    line_buffer_drain_line(&buffer, 1);
    // Nothing was taken; then it was, past the buffer.
    line_buffer_drain(&buffer, 0);
    append(&buffer, "\r", 1);
    check_find(&buffer, LINE_ENDING_ANY, 100, LINE_INCOMPLETE, 0, 0);
    line_buffer_end_run(&buffer);
    append(&buffer, "\n", 1);
    check_find(&buffer, LINE_ENDING_ANY, 100, LINE_FOUND, 1, 1);
    line_buffer_drain_line(&buffer, 1);
    line_buffer_clear(&buffer);
    append(&buffer, "\n", 1);
    check_find(&buffer, LINE_ENDING_ANY, 100, LINE_FOUND, 1, 1);
    line_buffer_clear(&buffer);
}

// A CR that was taken is no CR before the LF.
static void
test_drain_between_cr_and_lf(void)
{
    static const enum line_ending both[] = {LINE_ENDING_CRLF, LINE_ENDING_CRLF_STRICT};
    for (size_t i = 0; i < COUNT_OF(both); i++) {
        for (int is_found_before = 0; is_found_before < 2; is_found_before++) {
            bool is_strict = both[i] == LINE_ENDING_CRLF_STRICT;
            struct line_buffer buffer;
            line_buffer_init(&buffer);
            append(&buffer, "ab\r\nc\r\n", is_found_before ? 7 : 3);
            check_find(&buffer, both[i], 100,
                       is_found_before ? LINE_FOUND : LINE_INCOMPLETE, 4, 2);
            line_buffer_drain(&buffer, 3);
            CHECK(line_buffer_is_consistent(&buffer));
            if (!is_found_before) {
                append(&buffer, "\nc\r\n", 4);
            }
            check_find(&buffer, both[i], 100, LINE_FOUND, is_strict ? 4 : 1,
                       is_strict ? 2 : 1);
            line_buffer_clear(&buffer);
        }
    }
}

static void
test_find_in_bytes_that_lie_elsewhere(void)
{
    size_t ending_length = 0;
    CHECK_UINT(line_find("", 0, LINE_ENDING_LF, &ending_length), 0);
    CHECK_UINT(line_find("ab\nc\n", 5, LINE_ENDING_LF, &ending_length), 3);
    CHECK_UINT(ending_length, 1);
    CHECK_UINT(line_find("ab\nc\n", 2, LINE_ENDING_LF, &ending_length), 0);
    CHECK_UINT(line_find("ab\r\nc\n", 6, LINE_ENDING_CRLF, &ending_length), 4);
    CHECK_UINT(ending_length, 2);
    CHECK_UINT(line_find("\n", 1, LINE_ENDING_CRLF, &ending_length), 1);
    CHECK_UINT(ending_length, 1);
    CHECK_UINT(line_find("\n\ra\r\n", 5, LINE_ENDING_CRLF_STRICT, &ending_length), 5);
    CHECK_UINT(ending_length, 2);
    CHECK_UINT(line_find("\n\ra\r\n", 4, LINE_ENDING_CRLF_STRICT, &ending_length), 0);
    CHECK_UINT(line_find("\n\0", 2, LINE_ENDING_NUL, &ending_length), 2);
    CHECK_UINT(ending_length, 1);
}

// Where eight bytes are looked at at once, at each distance from the start and the end.
static void
test_cr_and_lf_are_found_at_every_place(void)
{
    char data[40];
    for (size_t length = 0; length < sizeof(data); length++) {
        for (size_t place = 0; place <= length; place++) {
            struct line_buffer buffer;
            line_buffer_init(&buffer);
            // Values that differ from a CR or a LF in one bit, or by one.
            for (size_t i = 0; i < length; i++) {
                data[i] = "\x8a\x8d\x0b\x0c\x09\x0e\x1a\x2d"[random_below(8)];
            }
            if (place < length) {
                data[place] = random_below(2) == 0 ? '\r' : '\n';
            }
            append(&buffer, data, length);
            check_find(&buffer, LINE_ENDING_ANY, SIZE_MAX,
                       place < length ? LINE_FOUND : LINE_INCOMPLETE, place + 1, 1);
            line_buffer_clear(&buffer);
        }
    }
}

int
main(void)
{
    RUN(test_every_split_gives_the_same_lines);
    RUN(test_limit_under_at_and_over_a_line_of_each_kind);
    RUN(test_limit_cuts_a_run_and_the_rest_is_dropped);
    RUN(test_rest_of_a_run_is_dropped_however_late_it_comes);
    RUN(test_rest_of_a_run_is_there_for_others);
    RUN(test_drain_between_cr_and_lf);
    RUN(test_find_in_bytes_that_lie_elsewhere);
    RUN(test_cr_and_lf_are_found_at_every_place);
    return harness_finish("line_endings");
}
