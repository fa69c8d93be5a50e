// chained_pipes.c: what it costs to find the few that are ready among many.
//
//     chained_pipes_LIBRARY PIPES ACTIVE WRITES [MANNER]
//
// Bytes travel along a chain of pipes: whoever finds one in his pipe takes it and, while
// there are writes left, puts one into the next. A run puts a byte into ACTIVE pipes and
// turns the loop until every byte written has been read. Each event is one read and at
// most one write of one byte, with every library.
//
// Reads commands from its input, a line each, and answers each with the microseconds of
// processor time of its runs as a JSON list. Nothing here ever waits, so on a quiet
// machine processor time is time.
//
//     dispatch N    N runs
//     anew N        N runs, each with ending all watches and beginning them anew before it

#define _GNU_SOURCE
#include "chained_pipes.h"

#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WARM_UP_RUNS 3
// With an edge lost, nothing would ever come again. None is as long as a turn fetches all
// that is ready: then no pipe ever holds two bytes when the next turn begins.
#define MAX_IDLE_TURNS 1000

static int *read_ends;
static int *write_ends;
static int pipe_count;
static long writes_left;
static long written;
static long taken;

static uint64_t
read_cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void
put_byte(int index)
{
    if (write(write_ends[index], "x", 1) != 1) {
        die("write");
    }
    written++;
}

void
pipe_is_readable(int index)
{
    char byte;
    if (read(read_ends[index], &byte, 1) != 1) {
        die("read");
    }
    taken++;
    if (writes_left > 0) {
        writes_left--;
        put_byte(index + 1 < pipe_count ? index + 1 : 0);
    }
}

static void
make_pipes(int count)
{
    pipe_count = count;
    read_ends = allocate_records(count, sizeof(int));
    write_ends = allocate_records(count, sizeof(int));
    for (int i = 0; i < count; i++) {
        int ends[2];
        if (pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0) {
            die("pipe2");
        }
        read_ends[i] = ends[0];
        write_ends[i] = ends[1];
    }
}

static void
turn_until_all_are_taken(void)
{
    int idle_turns = 0;
    while (taken < written) {
        long before = taken;
        loop_turn();
        idle_turns = taken == before ? idle_turns + 1 : 0;
        if (idle_turns > MAX_IDLE_TURNS) {
            fprintf(stderr, "%ld of %ld bytes were never reported\n", written - taken,
                    written);
            exit(1);
        }
    }
}

// One run. Returns its nanoseconds.
static uint64_t
run_once(int active, long writes)
{
    written = taken = 0;
    writes_left = writes;
    for (int i = 0; i < active; i++) {
        put_byte((int)((long)i * pipe_count / active));
    }
    uint64_t start_ns = read_cpu_ns();
    turn_until_all_are_taken();
    return read_cpu_ns() - start_ns;
}

// Ends all watches and begins them anew. Returns the nanoseconds it took.
static uint64_t
watch_all_anew(void)
{
    uint64_t start_ns = read_cpu_ns();
    for (int i = 0; i < pipe_count; i++) {
        loop_unwatch(i);
        loop_watch(i);
    }
    loop_turn(); // there are libraries that tell the kernel only here
    return read_cpu_ns() - start_ns;
}

// One run to fill the caches again, and [run_count] runs that are printed.
static void
do_runs(int active, long writes, int run_count, bool is_anew)
{
    for (int run = 0; run <= run_count; run++) {
        uint64_t ns = is_anew ? watch_all_anew() : 0;
        ns += run_once(active, writes);
        if (run > 0) {
            printf("%s%.3f", run == 1 ? "[" : ", ", (double)ns / 1e3);
        }
    }
    printf("]\n");
    fflush(stdout);
}

static void
obey_commands(int active, long writes)
{
    char line[64];
    while (fgets(line, sizeof line, stdin) != NULL) {
        int run_count;
        if (sscanf(line, "dispatch %d", &run_count) == 1 && run_count > 0) {
            do_runs(active, writes, run_count, false);
        }
        else if (sscanf(line, "anew %d", &run_count) == 1 && run_count > 0) {
            do_runs(active, writes, run_count, true);
        }
        else {
            fprintf(stderr, "no such command: %s", line);
            exit(2);
        }
    }
}

int
main(int argc, char **argv)
{
    int count = argc > 1 ? atoi(argv[1]) : 0;
    int active = argc > 2 ? atoi(argv[2]) : 0;
    long writes = argc > 3 ? atol(argv[3]) : -1;
    const char *manner = argc > 4 ? argv[4] : "";
    bool is_usual = manner[0] == '\0';
    if (argc > 5 || active < 1 || active > count || writes < 0 ||
        (!is_usual && strcmp(manner, loop_other_manner) != 0)) {
        fprintf(stderr, "usage: %s PIPES ACTIVE WRITES [%s]\n", argv[0],
                loop_other_manner);
        return 2;
    }
    make_pipes(count);
    loop_open(count, read_ends, is_usual);
    for (int i = 0; i < count; i++) {
        loop_watch(i);
    }
    for (int run = 0; run < WARM_UP_RUNS; run++) {
        // All are ready at once: whose array of events grows lets it grow now.
        (void)run_once(count, 0);
    }
    obey_commands(active, writes);
    loop_close();
    return 0;
}
