// test_frame.c: frame.h sentence by sentence.

#include <errno.h>
#include <string.h>

#include "frame.h"
#include "harness.h"

static struct frame_format
parse(const char *text)
{
    struct frame_format format;
    memset(&format, 0xa5, sizeof(format));
    CHECK_INT(frame_parse_format(text, &format), 0);
    return format;
}

static void
test_formats_have_the_sizes_and_signs_of_the_struct_module(void)
{
    static const struct {
        char letter;
        bool is_signed;
        size_t size;
        size_t native_size;
    } letters[] = {
        {'b', true, 1, 1},
        {'B', false, 1, 1},
        {'h', true, 2, sizeof(short)},
        {'H', false, 2, sizeof(unsigned short)},
        {'i', true, 4, sizeof(int)},
        {'I', false, 4, sizeof(unsigned int)},
        {'l', true, 4, sizeof(long)},
        {'L', false, 4, sizeof(unsigned long)},
        {'q', true, 8, sizeof(long long)},
        {'Q', false, 8, sizeof(unsigned long long)},
    };
    for (size_t i = 0; i < COUNT_OF(letters); i++) {
        for (const char *order = "@=<>!"; *order != '\0'; order++) {
            const char text[] = {*order, letters[i].letter, '\0'};
            struct frame_format format = parse(text);
            CHECK_UINT(format.size,
                       *order == '@' ? letters[i].native_size : letters[i].size);
            CHECK_INT(format.is_signed, letters[i].is_signed);
        }
        const char text[] = {letters[i].letter, '\0'};
        CHECK_UINT(parse(text).size, letters[i].native_size);
    }
}

static void
test_order_of_bytes(void)
{
    const uint16_t one = 1;
    bool is_little = *(const unsigned char *)&one == 1;
    CHECK_INT(parse("<I").is_little_endian, true);
    CHECK_INT(parse(">I").is_little_endian, false);
    CHECK_INT(parse("!I").is_little_endian, false);
    CHECK_INT(parse("=I").is_little_endian, is_little);
    CHECK_INT(parse("@I").is_little_endian, is_little);
    CHECK_INT(parse("I").is_little_endian, is_little);
}

static void
test_other_formats_are_refused(void)
{
    static const char *const bad[] = {"",   ">",  "@",   "x",  "?",  "c",   "e",  "d",
                                      "n",  "P",  "s",   "II", "4I", ">II", "I>", " I",
                                      "I ", ">>", ">>I", "<",  "1",  "\xff"};
    struct frame_format format;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        if (!CHECK_INT(frame_parse_format(bad[i], &format), -EINVAL)) {
            CHECK_STRING(bad[i], "refused");
        }
    }
}

static void
check_find(const char *format_text, const char *data, size_t held, size_t limit,
           enum frame_status expected_status, uint64_t expected_length)
{
    struct frame_format format = parse(format_text);
    uint64_t length = 12345;
    CHECK_INT(frame_find(&format, data, held, limit, &length), expected_status);
    CHECK_UINT(length, expected_length);
}

static void
test_length_is_read_in_its_order(void)
{
    static const char data[] = "\x01\x02\x03\x04\x05\x06\x07\x08";
    check_find(">H", data, 2, SIZE_MAX, FRAME_INCOMPLETE, 0x0102);
    check_find("<H", data, 2, SIZE_MAX, FRAME_INCOMPLETE, 0x0201);
    check_find("!I", data, 4, SIZE_MAX, FRAME_INCOMPLETE, 0x01020304);
    check_find("<l", data, 4, SIZE_MAX, FRAME_INCOMPLETE, 0x04030201);
    check_find(">Q", data, 8, 100, FRAME_TOO_LONG, UINT64_C(0x0102030405060708));
    check_find("<q", data, 8, 100, FRAME_TOO_LONG, UINT64_C(0x0807060504030201));
    check_find("B", "\xff", 1, SIZE_MAX, FRAME_INCOMPLETE, 255);
}

static void
test_frame_is_whole_with_its_last_byte(void)
{
    static const char data[] = "\0\0\0\x05"
                               "12345more";
    for (size_t held = 0; held < 9; held++) {
        check_find(">I", data, held, 5, FRAME_INCOMPLETE, held < 4 ? 0 : 5);
    }
    check_find(">I", data, 9, 5, FRAME_FOUND, 5);
    check_find(">I", data, 13, 5, FRAME_FOUND, 5);
    check_find("B", "\0", 1, 1, FRAME_FOUND, 0);
    check_find("B", NULL, 0, 1, FRAME_INCOMPLETE, 0);
}

static void
test_limit_under_at_and_over(void)
{
    check_find("B", "\x05", 1, 4, FRAME_TOO_LONG, 5);
    check_find("B", "\x05", 1, 5, FRAME_INCOMPLETE, 5);
    check_find("B", "\x05", 1, 6, FRAME_INCOMPLETE, 5);
    check_find("B", "\x05whole", 6, 4, FRAME_TOO_LONG, 5);
    check_find("Q", "\xff\xff\xff\xff\xff\xff\xff\xff", 8, SIZE_MAX / 2, FRAME_TOO_LONG,
               UINT64_MAX);
}

static void
test_negative_lengths(void)
{
    check_find("b", "\xff", 1, SIZE_MAX, FRAME_NEGATIVE, (uint64_t)-1);
    check_find("b", "\x80", 1, SIZE_MAX, FRAME_NEGATIVE, (uint64_t)-128);
    check_find("b", "\x7f", 1, SIZE_MAX, FRAME_INCOMPLETE, 127);
    check_find(">h", "\x80\x00", 2, 1, FRAME_NEGATIVE, (uint64_t)-32768);
    check_find("<h", "\xfe\xff", 2, 1, FRAME_NEGATIVE, (uint64_t)-2);
    check_find(">i", "\xff\xff\xff\xfe", 4, 1, FRAME_NEGATIVE, (uint64_t)-2);
    check_find(">q", "\x80\0\0\0\0\0\0\0", 8, 1, FRAME_NEGATIVE, (uint64_t)INT64_MIN);
    check_find(">q", "\xff\xff\xff\xff\xff\xff\xff\xff", 8, 1, FRAME_NEGATIVE,
               (uint64_t)-1);
    check_find(">i", "\xff\xff\xff", 3, 1, FRAME_INCOMPLETE, 0);
}

int
main(void)
{
    RUN(test_formats_have_the_sizes_and_signs_of_the_struct_module);
    RUN(test_order_of_bytes);
    RUN(test_other_formats_are_refused);
    RUN(test_length_is_read_in_its_order);
    RUN(test_frame_is_whole_with_its_last_byte);
    RUN(test_limit_under_at_and_over);
    RUN(test_negative_lengths);
    return harness_finish("frame");
}
