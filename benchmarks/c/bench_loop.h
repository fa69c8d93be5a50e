// bench_loop.h: what stands between the microbenchmarks of a loop and its library.
//
// The driver (bench_loop.c) has the cases; a file for each library does what is declared
// first and calls timer_expired() and loop_woke(). They are translation units apart, so no
// library has its callbacks inlined into the work.

#ifndef BENCHMARK_BENCH_LOOP_H
#define BENCHMARK_BENCH_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "die.h"

// --- A library's part -------------------------------------------------------------------

// Prepares a loop that other threads may wake, with [timer_count] timers that are not armed.
void loop_open(int timer_count);

// One turn: fetches what is ready and handles it; waits for something if [waits].
void loop_turn(bool waits);

// Makes the turn that waits, or else the next one, call loop_woke(). From any thread.
void loop_wake(void);

// Starts and ends watching [fd], one at a time, for reading.
void loop_watch(int fd);
void loop_unwatch(int fd);

// Arms the timer [index], whether it is armed or not.
void loop_arm(int index, uint64_t delay_ms);
void loop_cancel(int index);

void loop_close(void);

// --- The driver's part ------------------------------------------------------------------

void timer_expired(int index);
void loop_woke(void);

#endif
