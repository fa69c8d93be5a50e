// bench_line_buffer.c: what a line costs between recv and the handler, per line.
//
// Each case appends what a packet brings and takes out all whole lines, as a connection
// does. The last one sends a long line byte by byte: it is linear only if no byte is
// looked at twice.

#include "bench.h"
#include "line_buffer.h"

#include <stdlib.h>
#include <string.h>

#define MAX_LINE_BYTES 65536

static struct line_buffer buffer;
static char packet[65536];

static void
fill_packet(size_t line_bytes, size_t line_count)
{
    memset(packet, 'x', line_bytes * line_count);
    for (size_t i = 1; i <= line_count; i++) {
        packet[i * line_bytes - 1] = '\n';
    }
}

static void
append(const char *data, size_t length)
{
    if (line_buffer_append(&buffer, data, length) < 0) {
        abort();
    }
}

static uint64_t
take_lines(void)
{
    uint64_t line_count = 0;
    size_t length;
    size_t ending_length;
    while (line_buffer_find_line(&buffer, LINE_ENDING_LF, MAX_LINE_BYTES, &length,
                                 &ending_length) == LINE_FOUND) {
        bench_use((uint64_t)line_buffer_data(&buffer)[0]);
        line_buffer_drain_line(&buffer, length);
        line_count++;
    }
    return line_count;
}

static void
take_packets(uint64_t count, size_t line_bytes, size_t line_count)
{
    line_buffer_init(&buffer);
    fill_packet(line_bytes, line_count);
    for (uint64_t taken = 0; taken < count;) {
        append(packet, line_bytes * line_count);
        taken += take_lines();
    }
    line_buffer_clear(&buffer);
}

static void
one_line_a_packet(uint64_t count)
{
    take_packets(count, 64, 1);
}

static void
sixteen_lines_a_packet(uint64_t count)
{
    take_packets(count, 64, 16);
}

// As whoever hands lines on: each gets memory of its own.
static void
lines_with_copies(uint64_t count)
{
    size_t length;
    size_t ending_length;
    line_buffer_init(&buffer);
    fill_packet(64, 16);
    for (uint64_t taken = 0; taken < count;) {
        append(packet, 1024);
        while (line_buffer_find_line(&buffer, LINE_ENDING_LF, MAX_LINE_BYTES, &length,
                                     &ending_length) == LINE_FOUND) {
            char *line = malloc(length);
            if (line == NULL) {
                abort();
            }
            memcpy(line, line_buffer_data(&buffer), length);
            bench_use((uint64_t)line[0]);
            free(line);
            line_buffer_drain_line(&buffer, length);
            taken++;
        }
    }
    line_buffer_clear(&buffer);
}

static void
two_byte_lines(uint64_t count)
{
    take_packets(count, 2, 4096);
}

// Packets that end in mid-line: a thousand lines in pieces of 1,000 bytes.
static void
lines_across_packets(uint64_t count)
{
    line_buffer_init(&buffer);
    fill_packet(64, 1000);
    for (uint64_t taken = 0; taken < count;) {
        for (size_t start = 0; start < 64000; start += 1000) {
            append(packet + start, 1000);
            taken += take_lines();
        }
    }
    line_buffer_clear(&buffer);
}

// `count` is of bytes here.
static void
long_line_byte_by_byte(uint64_t count)
{
    line_buffer_init(&buffer);
    for (uint64_t i = 0; i < count; i++) {
        append(i % MAX_LINE_BYTES == MAX_LINE_BYTES - 1 ? "\n" : "x", 1);
        take_lines();
    }
    line_buffer_clear(&buffer);
}

int
main(int argc, char **argv)
{
    static const struct bench_case cases[] = {
        {"lines: 64 bytes, 16 a packet", 5000000, sixteen_lines_a_packet},
        {"lines: 64 bytes, 16 a packet, a copy of each", 5000000, lines_with_copies},
        {"lines: 64 bytes, one a packet", 2000000, one_line_a_packet},
        {"lines: 2 bytes, 4,096 a packet", 5000000, two_byte_lines},
        {"lines: 64 bytes, across packets of 1,000", 5000000, lines_across_packets},
        {"lines: a byte of 65,536 that trickle in", 2000000, long_line_byte_by_byte},
    };
    return BENCH_MAIN(argc, argv, cases);
}
