// line_buffer.c: finding lines in received bytes; see line_buffer.h.
//
// Called for each read of a connection. The path that counts is: a packet of many
// lines is appended, then find and drain alternate until nothing is left.
//
// Invariants: there is no place of an ending among the first `searched` bytes; if
// is_end_found, the byte behind them is held and is one. Both are counted from the first
// byte held, so that they stay true when the block moves or grows.
//
// Not here: the memory (byte_block.c).

#include "line_buffer.h"

#include <string.h>

#include "byte_search.h"

void
line_buffer_init(struct line_buffer *buffer)
{
    *buffer = (struct line_buffer){.searched = 0};
}

void
line_buffer_clear(struct line_buffer *buffer)
{
    byte_block_clear(&buffer->block);
    line_buffer_init(buffer);
}

int
line_buffer_append(struct line_buffer *buffer, const char *data, size_t length)
{
    return byte_block_append(&buffer->block, data, length);
}

int
line_buffer_prepend(struct line_buffer *buffer, const char *data, size_t length)
{
    int error = byte_block_prepend(&buffer->block, data, length);
    if (error == 0 && length > 0) {
        buffer->searched = 0;
        buffer->is_end_found = false;
        buffer->is_run_open = false;
    }
    return error;
}

char *
line_buffer_reserve(struct line_buffer *buffer, size_t length)
{
    return byte_block_reserve(&buffer->block, length);
}

void
line_buffer_commit(struct line_buffer *buffer, size_t length)
{
    byte_block_commit(&buffer->block, length);
}

// The first LF behind a CR, searching from [from]; the bytes before that are there, too.
static size_t
find_strict_end(const char *data, size_t from, size_t reach)
{
    while (from < reach) {
        const char *feed = memchr(data + from, '\n', reach - from);
        if (feed == NULL) {
            break;
        }
        if (feed > data && feed[-1] == '\r') {
            return (size_t)(feed - data);
        }
        from = (size_t)(feed - data) + 1;
    }
    return reach;
}

// Searches [data] from [from] up to [reach], which is more, for the place of an ending.
// Returns [reach] if there is none.
static inline size_t
find_end(const char *data, size_t from, size_t reach, enum line_ending ending)
{
    const char *place;
    switch (ending) {
    case LINE_ENDING_CRLF_STRICT:
        return find_strict_end(data, from, reach);
    case LINE_ENDING_ANY:
        place = find_cr_or_lf(data + from, reach - from);
        break;
    case LINE_ENDING_NUL:
        place = memchr(data + from, '\0', reach - from);
        break;
    default:
        place = memchr(data + from, '\n', reach - from);
        break;
    }
    return place == NULL ? reach : (size_t)(place - data);
}

// The length of the line, ending included, whose ending has its place at [place] and no
// byte at or behind [reach].
static inline size_t
measure_line(const char *data, size_t place, size_t reach, enum line_ending ending,
             size_t *ending_length)
{
    size_t end = place + 1;
    size_t begin = place;
    if (ending == LINE_ENDING_ANY) {
        while (end < reach && is_cr_or_lf(data[end])) {
            end++;
        }
    }
    else if (ending == LINE_ENDING_CRLF || ending == LINE_ENDING_CRLF_STRICT) {
        begin -= place > 0 && data[place - 1] == '\r';
    }
    *ending_length = end - begin;
    return end;
}

size_t
line_find(const char *data, size_t length, enum line_ending ending, size_t *ending_length)
{
    assert(ending != LINE_ENDING_ANY);
    size_t place = length == 0 ? 0 : find_end(data, 0, length, ending);
    return place == length ? 0 : measure_line(data, place, length, ending, ending_length);
}

void
line_buffer_note_searched(struct line_buffer *buffer, enum line_ending ending,
                          size_t searched)
{
    assert(searched <= line_buffer_length(buffer));
    buffer->ending = (uint8_t)ending;
    buffer->searched = searched;
    buffer->is_end_found = false;
}

// Drops what has come of the ending of the line before.
static void
swallow_run(struct line_buffer *buffer)
{
    const char *data = line_buffer_data(buffer);
    size_t held = line_buffer_length(buffer);
    size_t length = 0;
    while (length < held && is_cr_or_lf(data[length])) {
        length++;
    }
    line_buffer_drain(buffer, length);
    buffer->is_run_open = length == held;
}

enum line_status
line_buffer_find_line(struct line_buffer *buffer, enum line_ending ending, size_t limit,
                      size_t *length, size_t *ending_length)
{
    assert(limit >= 1);
    if (buffer->ending != ending) {
        line_buffer_note_searched(buffer, ending, 0);
    }
    if (buffer->is_run_open && ending == LINE_ENDING_ANY) {
        swallow_run(buffer);
    }
    size_t held = line_buffer_length(buffer);
    const char *data = line_buffer_data(buffer);
    size_t reach = held < limit ? held : limit;
    if (!buffer->is_end_found) {
        // Bytes behind the limit cannot change the answer and are left to later calls.
        if (buffer->searched < reach) {
            buffer->searched = find_end(data, buffer->searched, reach, ending);
            buffer->is_end_found = buffer->searched < reach;
        }
        if (!buffer->is_end_found) {
            return held > limit ? LINE_TOO_LONG : LINE_INCOMPLETE;
        }
    }
    if (buffer->searched >= limit) {
        return LINE_TOO_LONG;
    }
    *length = measure_line(data, buffer->searched, reach, ending, ending_length);
    return LINE_FOUND;
}

bool
line_buffer_is_consistent(const struct line_buffer *buffer)
{
    size_t held = line_buffer_length(buffer);
    size_t searched = buffer->searched;
    if (!byte_block_is_consistent(&buffer->block) || searched > held) {
        return false;
    }
    const char *data = line_buffer_data(buffer);
    enum line_ending ending = (enum line_ending)buffer->ending;
    if (searched > 0 && find_end(data, 0, searched, ending) < searched) {
        return false;
    }
    return !buffer->is_end_found ||
           (searched < held &&
            find_end(data, searched, searched + 1, ending) == searched);
}
