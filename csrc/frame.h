// frame.h: length-prefixed frames: an integer, then as many bytes as it says.
//
// The integer is described as in Python's struct module: a character for its size and sign,
// and perhaps one for the order of its bytes before it.
//
// Not here: where the bytes lie.

#ifndef CORONET_FRAME_H
#define CORONET_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct frame_format {
    uint8_t size; // of the length, in bytes: 1, 2, 4 or 8
    bool is_signed;
    bool is_little_endian;
};

enum frame_status {
    FRAME_FOUND,      // a whole frame is there
    FRAME_INCOMPLETE, // it is not whole
    FRAME_NEGATIVE,   // its length is below zero
    FRAME_TOO_LONG,   // its length is over the limit
};

// Reads "I", ">I" and so on: one of bBhHiIlLqQ, with one of @=<>! before it if need be;
// without one, or with @, sizes and order are the machine's. 0, or -EINVAL for all else.
int frame_parse_format(const char *text, struct frame_format *format);

// Looks at the frame that begins at [data], of which [held] bytes are there. Stores the
// number of bytes behind the length in [*payload_length], 0 if the length is not whole yet;
// a negative one as its complement to 2^64. It may be [limit] at most.
enum frame_status frame_find(const struct frame_format *format, const char *data,
                             size_t held, size_t limit, uint64_t *payload_length);

#endif
