// chained_pipes.h: what stands between the benchmark and the library it measures.
//
// The driver (chained_pipes.c) owns the pipes, the clock and the work; a file for each
// library does what is declared first and calls pipe_is_readable() for each event. They
// are translation units apart, so no library has its events inlined into the work.

#ifndef BENCHMARK_CHAINED_PIPES_H
#define BENCHMARK_CHAINED_PIPES_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "die.h"

// --- A library's part -------------------------------------------------------------------

// The manners of watching it knows besides its usual one, "" for none.
extern const char *const loop_other_manner;

// Prepares a loop and a record for each of [count] read ends; watches none of them yet.
// [is_usual] is false if loop_other_manner was asked for.
void loop_open(int count, const int *read_ends, bool is_usual);

// Starts and ends watching the read end [index].
void loop_watch(int index);
void loop_unwatch(int index);

// One turn: fetches what is ready, without waiting, and handles it.
void loop_turn(void);

void loop_close(void);

// --- The driver's part ------------------------------------------------------------------

void pipe_is_readable(int index);

#endif
