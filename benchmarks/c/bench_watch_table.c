// bench_watch_table.c: what an event costs between the kernel and its owner.
//
// Tokens are looked up in scattered order, as events of many connections come, once
// when the table fits the cache and once when it does not.

#include "bench.h"
#include "watch_table.h"

#include <stdlib.h>

#define MANY_FDS 100000

static struct watch_table table;
static int fd_count;
static uint64_t tokens[MANY_FDS];

static void
fill_table(int count)
{
    static char owner;
    watch_table_init(&table);
    fd_count = count;
    for (int fd = 0; fd < count; fd++) {
        if (watch_table_add(&table, fd, &owner) < 0) {
            abort();
        }
        tokens[fd] = watch_table_token(&table, fd);
    }
}

static void
find_scattered(uint64_t count)
{
    uint64_t state = 1;
    uint64_t found = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t token = tokens[bench_random(&state) % (uint64_t)fd_count];
        found += watch_table_find(&table, token) != NULL;
    }
    bench_use(found);
}

// The same walk without the table, to be taken off in mind from the figure above it.
static void
walk_scattered(uint64_t count)
{
    uint64_t state = 1;
    uint64_t sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        sum += tokens[bench_random(&state) % (uint64_t)fd_count];
    }
    bench_use(sum);
}

// A short connection: its number gets an owner and loses it again.
static void
add_and_remove(uint64_t count)
{
    static char owner;
    for (uint64_t i = 0; i < count; i++) {
        int fd = fd_count + (int)(i % 64);
        if (watch_table_add(&table, fd, &owner) < 0) {
            abort();
        }
        watch_table_remove(&table, fd);
    }
}

int
main(void)
{
    fill_table(64);
    bench_run("watch_table: find among 64", 10000000, find_scattered);
    bench_run("  (the same without the table)", 10000000, walk_scattered);
    watch_table_fini(&table);
    fill_table(MANY_FDS);
    bench_run("watch_table: find among 100,000", 10000000, find_scattered);
    bench_run("  (the same without the table)", 10000000, walk_scattered);
    bench_run("watch_table: add and remove", 10000000, add_and_remove);
    watch_table_fini(&table);
    return 0;
}
