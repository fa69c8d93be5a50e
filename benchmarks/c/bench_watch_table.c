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

static void
find_among_few(uint64_t count)
{
    fill_table(64);
    bench_begin();
    find_scattered(count);
    bench_end();
    watch_table_fini(&table);
}

static void
find_among_many(uint64_t count)
{
    fill_table(MANY_FDS);
    bench_begin();
    find_scattered(count);
    bench_end();
    watch_table_fini(&table);
}

// A short connection: its number gets an owner and loses it again.
static void
add_and_remove(uint64_t count)
{
    static char owner;
    fill_table(64);
    bench_begin();
    for (uint64_t i = 0; i < count; i++) {
        int fd = fd_count + (int)(i % 64);
        if (watch_table_add(&table, fd, &owner) < 0) {
            abort();
        }
        watch_table_remove(&table, fd);
    }
    bench_end();
    watch_table_fini(&table);
}

int
main(int argc, char **argv)
{
    static const struct bench_case cases[] = {
        {"table: find among 64", 10000000, find_among_few},
        {"table: find among 100,000", 20000000, find_among_many},
        {"table: add and remove", 10000000, add_and_remove},
    };
    return BENCH_MAIN(argc, argv, cases);
}
