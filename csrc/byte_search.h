// byte_search.h: the search that the C library has not got.
//
// memchr() looks for one value. Two of them, one after the other, would look at bytes twice;
// where one value is frequent and the other is not, at all bytes for each line.

#ifndef CORONET_BYTE_SEARCH_H
#define CORONET_BYTE_SEARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline bool
is_cr_or_lf(char byte)
{
    return byte == '\r' || byte == '\n';
}

// Not 0 if one of the eight bytes of [word] is zero.
static inline uint64_t
find_zero_byte(uint64_t word)
{
    return (word - UINT64_C(0x0101010101010101)) & ~word & UINT64_C(0x8080808080808080);
}

// The first CR or LF among [length] bytes; NULL if there is none.
static inline const char *
find_cr_or_lf(const char *data, size_t length)
{
    const char *end = data + length;
    while ((size_t)(end - data) >= sizeof(uint64_t)) {
        uint64_t word;
        memcpy(&word, data, sizeof(word));
        if ((find_zero_byte(word ^ UINT64_C(0x0a0a0a0a0a0a0a0a)) |
             find_zero_byte(word ^ UINT64_C(0x0d0d0d0d0d0d0d0d))) != 0) {
            break;
        }
        data += sizeof(word);
    }
    while (data < end && !is_cr_or_lf(*data)) {
        data++;
    }
    return data < end ? data : NULL;
}

#endif
