// line_buffer.c: finding lines in received bytes; see line_buffer.h.
//
// Called for each read of a connection. The path that counts is: a packet of many
// lines is appended, then find and drain alternate until nothing is left.
//
// Invariants: the first `searched` bytes hold no line feed; if is_line_feed_found, the
// byte behind them is held and is one. Both are counted from the first byte held, so
// that they stay true when the block moves or grows.
//
// Not here: the memory (byte_block.c).

#include "line_buffer.h"

#include <string.h>

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
        buffer->is_line_feed_found = false;
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

// Searches on for a line feed among the first [reach] bytes, none of which may be
// missing.
static void
search_up_to(struct line_buffer *buffer, size_t reach)
{
    const char *data = line_buffer_data(buffer);
    const char *from = data + buffer->searched;
    const char *line_feed = memchr(from, '\n', reach - buffer->searched);
    if (line_feed == NULL) {
        buffer->searched = reach;
        return;
    }
    buffer->searched = (size_t)(line_feed - data);
    buffer->is_line_feed_found = true;
}

enum line_status
line_buffer_find_line(struct line_buffer *buffer, size_t limit, size_t *length)
{
    assert(limit >= 1);
    size_t held = line_buffer_length(buffer);
    if (!buffer->is_line_feed_found) {
        // Bytes behind the limit cannot change the answer and are left to later calls.
        size_t reach = held < limit ? held : limit;
        if (buffer->searched < reach) {
            search_up_to(buffer, reach);
        }
        if (!buffer->is_line_feed_found) {
            return held > limit ? LINE_TOO_LONG : LINE_INCOMPLETE;
        }
    }
    if (buffer->searched >= limit) {
        return LINE_TOO_LONG;
    }
    *length = buffer->searched + 1;
    return LINE_FOUND;
}

void
line_buffer_drain(struct line_buffer *buffer, size_t length)
{
    byte_block_drain(&buffer->block, length);
    if (length <= buffer->searched) {
        buffer->searched -= length;
    }
    else {
        // The line feed behind the searched bytes goes too.
        buffer->searched = 0;
        buffer->is_line_feed_found = false;
    }
}

bool
line_buffer_is_consistent(const struct line_buffer *buffer)
{
    size_t held = line_buffer_length(buffer);
    if (!byte_block_is_consistent(&buffer->block) || buffer->searched > held) {
        return false;
    }
    const char *data = line_buffer_data(buffer);
    if (buffer->searched > 0 && memchr(data, '\n', buffer->searched) != NULL) {
        return false;
    }
    return !buffer->is_line_feed_found ||
           (buffer->searched < held && data[buffer->searched] == '\n');
}
