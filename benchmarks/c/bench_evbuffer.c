// bench_evbuffer.c: the cases of bench_line_buffer.c that libevent's buffers know too.

#include "bench.h"

#include <event2/buffer.h>

static char packet[1024];
static struct evbuffer *buffer;

static void
open_buffer(void)
{
    memset(packet, 'x', sizeof packet);
    for (size_t end = 64; end <= sizeof packet; end += 64) {
        packet[end - 1] = '\n';
    }
    buffer = evbuffer_new();
    if (buffer == NULL) {
        abort();
    }
}

static void
append(size_t length)
{
    if (evbuffer_add(buffer, packet, length) < 0) {
        abort();
    }
}

// Looks at each line where it lies, and drains it.
static uint64_t
take_lines(void)
{
    uint64_t line_count = 0;
    for (;;) {
        struct evbuffer_ptr end =
            evbuffer_search_eol(buffer, NULL, NULL, EVBUFFER_EOL_LF);
        if (end.pos < 0) {
            return line_count;
        }
        bench_use(evbuffer_pullup(buffer, end.pos + 1)[0]);
        evbuffer_drain(buffer, (size_t)end.pos + 1);
        line_count++;
    }
}

static void
take_packets(uint64_t count, size_t packet_bytes)
{
    open_buffer();
    for (uint64_t taken = 0; taken < count;) {
        append(packet_bytes);
        taken += take_lines();
    }
    evbuffer_free(buffer);
}

static void
sixteen_lines_a_packet(uint64_t count)
{
    take_packets(count, 1024);
}

static void
one_line_a_packet(uint64_t count)
{
    take_packets(count, 64);
}

static void
lines_with_copies(uint64_t count)
{
    open_buffer();
    for (uint64_t taken = 0; taken < count;) {
        append(sizeof packet);
        char *line;
        while ((line = evbuffer_readln(buffer, NULL, EVBUFFER_EOL_LF)) != NULL) {
            bench_use((uint64_t)line[0]);
            free(line);
            taken++;
        }
    }
    evbuffer_free(buffer);
}

int
main(int argc, char **argv)
{
    static const struct bench_case cases[] = {
        {"lines: 64 bytes, 16 a packet", 2000000, sixteen_lines_a_packet},
        {"lines: 64 bytes, 16 a packet, a copy of each", 2000000, lines_with_copies},
        {"lines: 64 bytes, one a packet", 2000000, one_line_a_packet},
    };
    return BENCH_MAIN(argc, argv, cases);
}
