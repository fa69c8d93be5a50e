// fair_queue.h: members that share one token bucket, each getting its part.
//
// A member asks before it moves bytes and tells afterwards how many it has moved. Who may
// not move any stands in line. When enough tokens have come, a round begins: the first in
// line get turns, all of the same size, which is the tokens there are, divided by those who
// wait, but no less than min_share. After its turn a member that wants more goes to the end
// of the line. So what everybody gets does not depend on the size of the pieces that it
// moves, nor on how often it asks.
//
// A member that comes while nobody waits has a turn at once, as if all members had come; so
// have the others that come before the next round, which does not begin within
// FAIR_QUEUE_GATHER_NS. So who comes first after a rest does not empty the bucket for the
// others. The tokens of a turn are kept for its member for FAIR_QUEUE_SLICE_NS; what it leaves
// is then everybody's. One member alone has no turns: it takes what there is.
//
// The caller begins a round when fair_queue_delay_ns() has passed, and lets those go on
// whom fair_queue_take_turn() names. It may be late by a little: as long as somebody waits,
// what comes within FAIR_QUEUE_SLICE_NS is kept on top of the burst, so that even a burst
// that comes in less time than a timer can tell does not lower the rate.
//
// Not here: timers, connections, the two directions.

#ifndef CORONET_FAIR_QUEUE_H
#define CORONET_FAIR_QUEUE_H

#include <stdbool.h>
#include <stddef.h>

#include "list.h"
#include "token_bucket.h"

// A round begins when what comes in this time is there, the whole burst if that is less,
// but no less than a share: waking for every token would cost more than the tokens.
#define FAIR_QUEUE_SLICE_NS UINT64_C(20000000)

// Who comes in this time has come with the first one: so long it may take until each of some
// hundreds of tasks that became ready together has run.
#define FAIR_QUEUE_GATHER_NS UINT64_C(5000000)

struct fair_member {
    struct list_node link; // in line, while it waits
    uint64_t turn;         // what is left of its turn, in bytes
    uint64_t round;        // the round it had that turn in, 0 = none yet
};

struct fair_queue {
    struct token_bucket bucket;
    struct list_node waiting; // members, who came first in front
    size_t waiting_count;
    size_t member_count;
    uint64_t min_share;      // the least size of a turn, in bytes
    uint64_t round;          // the number of this one, from 1 on
    uint64_t share;          // the size of its turns
    uint64_t early_share;    // of turns that nobody had to wait for, 0 = none was given
    uint64_t gather_ends_ns; // until then no round begins: others may come for such turns
    uint64_t promised;       // what is left of all the turns of this round ...
    uint64_t kept_until_ns;  // ... whose tokens are kept until then
    size_t turns_to_give;    // of this round, to those who wait
};

// Nobody is a member, and the bucket is full.
void fair_queue_init(struct fair_queue *queue, uint64_t rate, uint64_t burst,
                     uint64_t min_share, uint64_t now_ns);

void fair_queue_join(struct fair_queue *queue, struct fair_member *member);

// Legal at any time; the others only move up.
void fair_queue_leave(struct fair_queue *queue, struct fair_member *member);

// How many bytes, of [wanted] (at least 1), [member] may move now. 0: it stands in line.
uint64_t fair_queue_ask(struct fair_queue *queue, struct fair_member *member,
                        uint64_t wanted, uint64_t now_ns);

// [member] has moved [count] bytes; they may be more than it was told.
void fair_queue_note_moved(struct fair_queue *queue, struct fair_member *member,
                           uint64_t count);

// The tokens there are at [now_ns]: negative after more was moved than there were.
int64_t fair_queue_tokens(struct fair_queue *queue, uint64_t now_ns);

// Nanoseconds from [now_ns] until a round can begin; UINT64_MAX while nobody waits.
uint64_t fair_queue_delay_ns(struct fair_queue *queue, uint64_t now_ns);

// Begins a round, if enough tokens are there.
void fair_queue_begin_round(struct fair_queue *queue, uint64_t now_ns);

// The next member that has a turn in this round, out of the line; NULL when there is none
// left. Between two calls any member may ask, move, join and leave.
struct fair_member *fair_queue_take_turn(struct fair_queue *queue);

// The next member in line, whatever there is; NULL when nobody waits.
struct fair_member *fair_queue_take_waiting(struct fair_queue *queue);

#endif
