// hard_mode.h: what is rare, made to happen all the time. For test builds.
//
// With the macro CORONET_HARD_MODE the core takes, wherever it is free to choose, what is
// hardest for the code around it: each receive brings one byte, each send is short, memory
// grows by what is needed and moves, the timer wheel has two slots, whoever may give way
// does, and events and wake-ups come a second time with nothing behind them. Nothing that
// is promised changes. In any other build the constants are the usual ones, and what asks
// HARD_MODE is not there.
//
// Those who choose: byte_block.c, write_queue.c, watch_table.c, timer_wheel.h, reactor.c
// (events told again), py_turn.c and py_hub.h (who runs next), py_conn.c (waits that end
// for nothing), py_conn_read.c, py_conn_send.c and py_conn_message.c (moving bytes).

#ifndef CORONET_HARD_MODE_H
#define CORONET_HARD_MODE_H

#include <stddef.h>

#ifdef CORONET_HARD_MODE
#define HARD_MODE 1
#else
#define HARD_MODE 0
#endif

// The one of two constants that this build has.
#define HARD_OR_USUAL(hard, usual) (HARD_MODE ? (hard) : (usual))

// How much is received byte by byte of each stream, and up to what size memory grows by
// what is needed. The one is slow, the other quadratic: beyond, all is as usual.
#define HARD_MODE_MAX_TIGHT_BYTES ((size_t)16 * 1024)

// How much of [length] bytes, which may all go, is sent: half, so that whatever is sent
// takes a few calls, and the last is of one byte.
static inline size_t
hard_mode_cut(size_t length)
{
    return HARD_MODE ? length - length / 2 : length;
}

#endif
