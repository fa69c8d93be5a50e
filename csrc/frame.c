// frame.c: reading the length of a frame; see frame.h.

#include "frame.h"

#include <errno.h>
#include <string.h>

static bool
is_machine_little_endian(void)
{
    const uint16_t one = 1;
    uint8_t first;
    memcpy(&first, &one, 1);
    return first == 1;
}

// The size of the integer that [letter] stands for in any case, 0 for no such letter.
static size_t
choose_size(char letter, bool is_native)
{
    switch (letter) {
    case 'b':
    case 'B':
        return 1;
    case 'h':
    case 'H':
        return is_native ? sizeof(short) : 2;
    case 'i':
    case 'I':
        return is_native ? sizeof(int) : 4;
    case 'l':
    case 'L':
        return is_native ? sizeof(long) : 4;
    case 'q':
    case 'Q':
        return is_native ? sizeof(long long) : 8;
    default:
        return 0;
    }
}

int
frame_parse_format(const char *text, struct frame_format *format)
{
    bool has_order = text[0] != '\0' && strchr("@=<>!", text[0]) != NULL;
    char order = has_order ? text[0] : '@';
    char letter = text[has_order ? 1 : 0];
    size_t size = choose_size(letter, order == '@');
    if (size == 0 || text[has_order ? 2 : 1] != '\0') {
        return -EINVAL;
    }
    *format = (struct frame_format){
        .size = (uint8_t)size,
        .is_signed = strchr("bhilq", letter) != NULL,
        .is_little_endian = order == '<' || ((order == '@' || order == '=') &&
                                             is_machine_little_endian()),
    };
    return 0;
}

// Their value, without regard to a sign.
static uint64_t
read_length(const struct frame_format *format, const char *data)
{
    uint64_t value = 0;
    for (size_t i = 0; i < format->size; i++) {
        size_t place = format->is_little_endian ? format->size - 1 - i : i;
        value = value << 8 | (uint8_t)data[place];
    }
    return value;
}

enum frame_status
frame_find(const struct frame_format *format, const char *data, size_t held, size_t limit,
           uint64_t *payload_length)
{
    *payload_length = 0;
    if (held < format->size) {
        return FRAME_INCOMPLETE;
    }
    uint64_t length = read_length(format, data);
    uint64_t sign = UINT64_C(1) << (format->size * 8 - 1);
    if (format->is_signed && (length & sign) != 0) {
        *payload_length = (length ^ sign) - sign;
        return FRAME_NEGATIVE;
    }
    *payload_length = length;
    if (length > limit) {
        return FRAME_TOO_LONG;
    }
    return held - format->size < length ? FRAME_INCOMPLETE : FRAME_FOUND;
}
