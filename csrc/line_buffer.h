// line_buffer.h: received bytes in; lines and blocks out.
//
// Bytes lie in one block of memory (byte_block.h), which exists only while bytes are
// held. Lines are found where they lie. The buffer remembers how far it has searched
// and what it found there, so a byte is never scanned twice, however slowly a line
// trickles in and whatever the limits are; only bytes put in front and a search for another
// kind of ending begin anew. (A byte beside an ending may be looked at once more, to tell
// what belongs to it.)
//
// Not here: reading from a file, Python objects.

#ifndef CORONET_LINE_BUFFER_H
#define CORONET_LINE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "byte_block.h"

// What ends a line. With LINE_ENDING_ANY a line is there as soon as the first CR or LF of
// the run is, for the peer may wait for an answer. What comes of the run later is dropped by
// the next search with LINE_ENDING_ANY, so lines do not depend on how packets fall.
enum line_ending {
    LINE_ENDING_LF,          // LF
    LINE_ENDING_CRLF,        // LF, and a CR before it if there is one
    LINE_ENDING_CRLF_STRICT, // CR LF; either one alone is a byte like others
    LINE_ENDING_ANY,         // a run of CRs and LFs, however long
    LINE_ENDING_NUL,         // a byte of value 0
};

struct line_buffer {
    struct byte_block block; // the bytes held
    size_t searched;         // bytes from the first on known to hold no place, as below
    uint8_t ending;          // enum line_ending: what was searched for
    bool is_end_found;       // the byte behind them is the place of an ending: its last
                             // byte, with LINE_ENDING_ANY its first
    bool is_run_open; // a line with LINE_ENDING_ANY was taken and nothing since: CRs
                      // and LFs in front are its ending's
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

// Looks for the first line. LINE_FOUND stores its length, ending included, in [*length] and
// how much of that is the ending in [*ending_length]. [limit] is the greatest length
// allowed, ending included, at least 1; of a run that is too long the part that fits belongs
// to the line. Exactly [limit] bytes without an end are LINE_INCOMPLETE still: they may be
// the last of the stream. The bytes stay where they are, but for the rest of a run. A later
// call with a larger limit may succeed where this one said LINE_TOO_LONG.
enum line_status line_buffer_find_line(struct line_buffer *buffer,
                                       enum line_ending ending, size_t limit,
                                       size_t *length, size_t *ending_length);

// The path that counts, for the usual kind: the length of the first line, its LF included,
// if there is one within [limit]; 0 if there is not, or another kind was searched for
// before: line_buffer_find_line() tells.
static inline size_t
line_buffer_find_lf(struct line_buffer *buffer, size_t limit)
{
    size_t held = line_buffer_length(buffer);
    size_t reach = held < limit ? held : limit;
    size_t searched = buffer->searched;
    if (searched >= reach || buffer->ending != LINE_ENDING_LF || buffer->is_end_found) {
        return 0;
    }
    const char *data = line_buffer_data(buffer);
    const char *line_feed = (const char *)memchr(data + searched, '\n', reach - searched);
    if (line_feed == NULL) {
        buffer->searched = reach;
        return 0;
    }
    return (size_t)(line_feed - data) + 1;
}

// Finds a line in [length] bytes that lie elsewhere: the length of the first one, ending
// included, 0 if there is no whole one. Not for LINE_ENDING_ANY.
size_t line_find(const char *data, size_t length, enum line_ending ending,
                 size_t *ending_length);

// After line_find() found no line in the first [searched] bytes, and these have been
// appended to the empty buffer: they are not searched again.
void line_buffer_note_searched(struct line_buffer *buffer, enum line_ending ending,
                               size_t searched);

// Bytes that came next have been taken without having been in the buffer: a run is over.
static inline void
line_buffer_end_run(struct line_buffer *buffer)
{
    buffer->is_run_open = false;
}

// Drops the first [length] bytes, no more than are held. The last byte's going frees
// the block.
static inline void
line_buffer_drain(struct line_buffer *buffer, size_t length)
{
    byte_block_drain(&buffer->block, length);
    if (length > buffer->searched) {
        // The end behind the searched bytes goes too.
        buffer->searched = 0;
        buffer->is_end_found = false;
    }
    else {
        buffer->searched -= length;
        if (buffer->searched == 0 && buffer->ending == LINE_ENDING_CRLF_STRICT &&
            buffer->is_end_found) {
            // The CR has gone, and its LF is a byte like others.
            buffer->searched = 1;
            buffer->is_end_found = false;
        }
    }
    if (length > 0) {
        buffer->is_run_open = false;
    }
}

// Drops the line that was found last, of [length] bytes.
static inline void
line_buffer_drain_line(struct line_buffer *buffer, size_t length)
{
    line_buffer_drain(buffer, length);
    buffer->is_run_open = buffer->ending == LINE_ENDING_ANY;
}

// Checks every invariant; false if one is broken. Not between reserve and commit. O(n):
// for tests and debug builds.
bool line_buffer_is_consistent(const struct line_buffer *buffer);

#endif
