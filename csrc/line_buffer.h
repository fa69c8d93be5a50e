// line_buffer.h: received bytes in; lines and blocks out.
//
// Bytes lie in one block of memory (byte_block.h), which exists only while bytes are
// held. Lines are found where they lie. The buffer remembers how far it has searched
// and what it found there, so a byte is never scanned twice, however slowly a line
// trickles in and whatever the limits are; only bytes put in front begin the search anew.
//
// Not here: reading from a file, Python objects.

#ifndef CORONET_LINE_BUFFER_H
#define CORONET_LINE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

#include "byte_block.h"

struct line_buffer {
    struct byte_block block; // the bytes held
    size_t searched;         // bytes from the first on known to hold no line feed
    bool is_line_feed_found; // the byte behind them is known to be a line feed
};

enum line_status {
    LINE_FOUND,      // a whole line, its end included, is held
    LINE_INCOMPLETE, // no end of line yet, and the limit is not passed
    LINE_TOO_LONG,   // the line, its end included, is longer than the limit,
                     // or more bytes than the limit are held without an end
};

void line_buffer_init(struct line_buffer *buffer);

// Frees the block and forgets the bytes; the buffer is empty and usable again.
void line_buffer_clear(struct line_buffer *buffer);

static inline size_t
line_buffer_length(const struct line_buffer *buffer)
{
    return byte_block_length(&buffer->block);
}

// The first byte held, NULL if there is none; borrowed, until the next call that
// changes the buffer.
static inline const char *
line_buffer_data(const struct line_buffer *buffer)
{
    return byte_block_data(&buffer->block);
}

// Adds a copy of [length] bytes, which may not be the buffer's own, at the end. Returns
// 0, or -ENOMEM with nothing changed.
int line_buffer_append(struct line_buffer *buffer, const char *data, size_t length);

// The same in front of the first byte held. The search for a line begins anew, with the
// bytes that come first now.
int line_buffer_prepend(struct line_buffer *buffer, const char *data, size_t length);

// Makes room for [length] more bytes behind the last and returns where they go; NULL,
// with nothing changed, if there is no memory. One line_buffer_commit() must follow,
// before any other call: it says how many were really written there, 0 included.
char *line_buffer_reserve(struct line_buffer *buffer, size_t length);
void line_buffer_commit(struct line_buffer *buffer, size_t length);

// Looks for the first line feed. LINE_FOUND stores the line's length, line feed
// included, in [*length]. [limit] is the greatest length allowed, line feed included,
// at least 1. Exactly [limit] bytes without a line feed are LINE_INCOMPLETE still: they
// may be the last of the stream. The bytes stay where they are; a later call with a
// larger limit may succeed where this one said LINE_TOO_LONG.
enum line_status line_buffer_find_line(struct line_buffer *buffer, size_t limit,
                                       size_t *length);

// Drops the first [length] bytes, no more than are held. The last byte's going frees
// the block.
void line_buffer_drain(struct line_buffer *buffer, size_t length);

// Checks every invariant; false if one is broken. Not between reserve and commit. O(n):
// for tests and debug builds.
bool line_buffer_is_consistent(const struct line_buffer *buffer);

#endif
