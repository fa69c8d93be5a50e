// die.h: how the programs of the benchmarks end when the system refuses them something.

#ifndef BENCHMARKS_DIE_H
#define BENCHMARKS_DIE_H

#include <stdio.h>
#include <stdlib.h>

static inline _Noreturn void
die(const char *what)
{
    perror(what);
    exit(1);
}

// Memory for [count] records of [size] bytes, all zero.
static inline void *
allocate_records(int count, size_t size)
{
    void *records = calloc((size_t)count, size);
    if (records == NULL) {
        die("calloc");
    }
    return records;
}

#endif
