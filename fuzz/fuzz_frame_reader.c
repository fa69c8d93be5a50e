// fuzz_frame_reader.c: frames out of a line buffer, as connections read them, against the
// stream of all bytes that have come, read from its beginning each time.
//
// Formats are words of the fuzzer's too. The model knows them as a table.

#include <errno.h>
#include <string.h>

#include "frame.h"
#include "line_buffer.h"
#include "operations.h"

#define STREAM_SIZE (64 * 1024)

static uint8_t stream[STREAM_SIZE]; // all that has come
static size_t stream_length;
static size_t stream_taken;

static const struct {
    char letter;
    uint8_t standard_size;
    uint8_t native_size;
} letters[] = {
    {'b', 1, 1},
    {'h', 2, sizeof(short)},
    {'i', 4, sizeof(int)},
    {'l', 4, sizeof(long)},
    {'q', 8, sizeof(long long)},
};

// The format that [text] is, as the words of frame.h say. False if it is none.
static bool
find_format(const char *text, struct frame_format *format)
{
    const uint16_t one = 1;
    char order = '@';
    if (*text == '@' || *text == '=' || *text == '<' || *text == '>' || *text == '!') {
        order = *text++;
    }
    for (size_t i = 0; i < sizeof(letters) / sizeof(letters[0]); i++) {
        bool is_signed = text[0] == letters[i].letter;
        if ((is_signed || text[0] == letters[i].letter - 'a' + 'A') && text[1] == '\0') {
            format->size =
                order == '@' ? letters[i].native_size : letters[i].standard_size;
            format->is_signed = is_signed;
            format->is_little_endian = order == '<' || ((order == '@' || order == '=') &&
                                                        *(const uint8_t *)&one == 1);
            return true;
        }
    }
    return false;
}

static void
take_text(struct operations *operations, char *text)
{
    static const char usual[] = "@=<>!bBhHiIlLqQ";
    size_t length = take_below(operations, 4);
    for (size_t i = 0; i < length; i++) {
        uint8_t byte = take_byte(operations);
        text[i] = (char)(byte < 0xf0 ? usual[byte % (sizeof(usual) - 1)] : byte - 0x80);
    }
    text[length] = '\0';
}

// Asks for a format, until one is good: the old one stays otherwise.
static void
change_format(struct operations *operations, struct frame_format *format)
{
    char text[4];
    take_text(operations, text);
    struct frame_format parsed = {0, false, false};
    struct frame_format expected = {0, false, false};
    bool is_good = find_format(text, &expected);
    REQUIRE(frame_parse_format(text, &parsed) == (is_good ? 0 : -EINVAL));
    if (is_good) {
        REQUIRE(parsed.size == expected.size);
        REQUIRE(parsed.is_signed == expected.is_signed);
        REQUIRE(parsed.is_little_endian == expected.is_little_endian);
        *format = parsed;
    }
}

static void
receive(struct line_buffer *buffer, const uint8_t *bytes, size_t length)
{
    if (length > STREAM_SIZE - stream_length) {
        length = STREAM_SIZE - stream_length;
    }
    memcpy(stream + stream_length, bytes, length);
    stream_length += length;
    // Of its very size: what reads further is seen.
    char *piece = malloc(length > 0 ? length : 1);
    REQUIRE(piece != NULL);
    memcpy(piece, bytes, length);
    REQUIRE(line_buffer_append(buffer, piece, length) == 0);
    free(piece);
}

// A frame that is sound, or nearly so.
static void
receive_frame(struct line_buffer *buffer, struct operations *operations,
              const struct frame_format *format)
{
    static uint8_t bytes[16 + 8192];
    uint64_t said = take_length(operations, 8191);
    size_t length = (size_t)said;
    uint8_t error = take_byte(operations);
    if (error >= 0xf0) {
        said += error - UINT64_C(0xf8);
    }
    for (size_t i = 0; i < format->size; i++) {
        size_t place = format->is_little_endian ? i : format->size - 1 - i;
        bytes[place] = (uint8_t)(said >> 8 * i);
    }
    for (size_t i = 0; i < length; i++) {
        bytes[format->size + i] = (uint8_t)(i * 7 + error);
    }
    receive(buffer, bytes, format->size + length);
}

// What frame_find() has to say of [held] bytes.
static enum frame_status
judge(const struct frame_format *format, const uint8_t *bytes, size_t held,
      uint64_t limit, uint64_t *payload_length)
{
    *payload_length = 0;
    if (held < format->size) {
        return FRAME_INCOMPLETE;
    }
    uint64_t weight = 1;
    uint64_t value = 0;
    for (size_t i = 0; i < format->size; i++, weight *= 256) {
        value += weight * bytes[format->is_little_endian ? i : format->size - 1 - i];
    }
    // Here weight is 256 to the size, 0 for eight bytes: arithmetic modulo 2 to the 64.
    uint8_t highest = bytes[format->is_little_endian ? format->size - 1 : 0];
    if (format->is_signed && highest >= 128) {
        *payload_length = value - weight;
        return FRAME_NEGATIVE;
    }
    *payload_length = value;
    if (value > limit) {
        return FRAME_TOO_LONG;
    }
    return value <= held - format->size ? FRAME_FOUND : FRAME_INCOMPLETE;
}

static void
read_frame(struct line_buffer *buffer, const struct frame_format *format, size_t limit)
{
    size_t held = line_buffer_length(buffer);
    REQUIRE(held == stream_length - stream_taken);
    const char *data = line_buffer_data(buffer);
    REQUIRE(held == 0 || memcmp(data, stream + stream_taken, held) == 0);
    uint64_t expected_length;
    uint64_t length = 12345;
    enum frame_status expected =
        judge(format, stream + stream_taken, held, limit, &expected_length);
    REQUIRE(frame_find(format, data, held, limit, &length) == expected);
    REQUIRE(length == expected_length);
    if (expected == FRAME_FOUND) {
        REQUIRE(length <= limit && format->size + length <= held);
        line_buffer_drain(buffer, format->size + (size_t)length);
        stream_taken += format->size + (size_t)length;
    }
}

static void
operate(struct line_buffer *buffer, struct operations *operations,
        struct frame_format *format)
{
    static const size_t limits[] = {1, 2, 127, 128, 255, 256, 4096, 65535, SIZE_MAX};
    uint8_t choice = take_byte(operations);
    switch (choice % 8) {
    case 0:
        change_format(operations, format);
        break;
    case 1: {
        size_t length = take_length(operations, operations->left);
        length = length < operations->left ? length : operations->left;
        receive(buffer, operations->bytes, length);
        operations->bytes += length;
        operations->left -= length;
        break;
    }
    case 2:
    case 3:
        receive_frame(buffer, operations, format);
        break;
    case 4: {
        // As a reader does who gives up: some bytes are taken as such.
        size_t length = take_length(operations, stream_length - stream_taken);
        line_buffer_drain(buffer, length);
        stream_taken += length;
        break;
    }
    case 5:
        read_frame(buffer, format,
                   (size_t)take_number(operations, choice >= 128 ? 8 : 2));
        break;
    default:
        read_frame(buffer, format,
                   limits[take_below(operations, sizeof(limits) / sizeof(limits[0]))]);
        break;
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct operations operations = {bytes, length};
    struct frame_format format;
    struct line_buffer buffer;
    line_buffer_init(&buffer);
    stream_length = stream_taken = 0;
    REQUIRE(frame_parse_format(">I", &format) == 0);
    while (operations.left > 0) {
        operate(&buffer, &operations, &format);
        REQUIRE(line_buffer_is_consistent(&buffer));
    }
    read_frame(&buffer, &format, SIZE_MAX);
    line_buffer_clear(&buffer);
    return 0;
}
