// line_buffer.h: received bytes in; lines and blocks out.
//
// Bytes lie in one block of memory, [start, end). Lines are found where they lie. The
// buffer remembers how far it has searched, so a byte is never scanned twice for the
// same kind of line, however slowly a line trickles in. The block exists only while
// bytes are held: an idle connection owns none.
//
// Not here: reading from a file, Python objects.

#ifndef CORONET_LINE_BUFFER_H
#define CORONET_LINE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

struct line_buffer {
    char *block;                 // owned; NULL while no bytes are held
    size_t start;                // offset of the first byte held
    size_t end;                  // offset behind the last byte held
    size_t capacity;             // size of the block
    size_t searched;             // bytes from start on known to hold no line feed
};

enum line_status {
    LINE_FOUND,                  // a whole line, its end included, is held
    LINE_INCOMPLETE,             // no end of line yet, and the limit is not passed
    LINE_TOO_LONG,               // the line, its end included, is longer than the limit
};

void line_buffer_init(struct line_buffer *buffer);

// Frees the block and forgets the bytes; the buffer is empty and usable again.
void line_buffer_clear(struct line_buffer *buffer);

static inline size_t
line_buffer_length(const struct line_buffer *buffer)
{
    return buffer->end - buffer->start;
}

// The first byte held; borrowed, until the next call that changes the buffer.
static inline const char *
line_buffer_data(const struct line_buffer *buffer)
{
    return buffer->block + buffer->start;
}

// Adds a copy of [length] bytes at the end. Returns 0, or -ENOMEM with nothing changed.
int line_buffer_append(struct line_buffer *buffer, const char *data, size_t length);

// Makes room for [length] more bytes behind the last and returns where they go; NULL
// if there is no memory. line_buffer_commit() says how many were really written there.
char *line_buffer_reserve(struct line_buffer *buffer, size_t length);
void line_buffer_commit(struct line_buffer *buffer, size_t length);

// Looks for the first line feed. LINE_FOUND stores the line's length, line feed
// included, in [*length]. [limit] is the greatest length allowed, line feed included,
// at least 1. The bytes stay where they are; a later call with a larger limit may
// succeed where this one said LINE_TOO_LONG.
enum line_status line_buffer_find_line(struct line_buffer *buffer, size_t limit,
                                       size_t *length);

// Drops the first [length] bytes, no more than are held. The last byte's going frees
// the block.
void line_buffer_drain(struct line_buffer *buffer, size_t length);

// Checks every invariant; false if one is broken. For tests and debug builds.
bool line_buffer_is_consistent(const struct line_buffer *buffer);

#endif
