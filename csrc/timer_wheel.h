// timer_wheel.h: deadlines, in whole milliseconds of a clock the caller reads.
//
// A hierarchical wheel: arming, moving and disarming are O(1), and each timer is
// touched once a level on its way down. The wheel allocates nothing: a timer is a
// part of the object it belongs to.
//
// Most deadlines of a network server never fire: each wait sets one and is over long
// before it. So a timer is *linked* into the wheel apart from being *armed*:
//   - moving a linked timer to a later deadline only stores the new deadline;
//   - disarming only forgets the deadline;
// and the wheel puts right what it finds when it comes to the old place. Moving to an
// earlier deadline relinks at once. timer_wheel_unlink() must be called before the
// memory of a timer goes.
//
// Not here: reading a clock, calling anything when a timer is due.

#ifndef CORONET_TIMER_WHEEL_H
#define CORONET_TIMER_WHEEL_H

#include <stdbool.h>
#include <stdint.h>

#include "hard_mode.h"
#include "list.h"

// Later deadlines than this far from now are brought back to it: one year.
#define TIMER_MAX_DELAY_MS (UINT64_C(366) * 24 * 3600 * 1000)

// The deadline of a timer that is not armed.
#define TIMER_NEVER UINT64_MAX

#ifndef WHEEL_SLOT_BITS
#define WHEEL_SLOT_BITS HARD_OR_USUAL(1, 6) // slots a level, as a power of two; at most 6
#endif
#define WHEEL_SLOTS (1u << WHEEL_SLOT_BITS)
#define WHEEL_LEVELS ((36 + WHEEL_SLOT_BITS - 1) / WHEEL_SLOT_BITS)

struct timer {
    struct list_node link; // its place in a slot, or among the due
    uint64_t deadline_ms;  // TIMER_NEVER while not armed
    uint64_t linked_ms;    // the deadline it was linked for; never later than deadline_ms
    uint8_t level;         // where it is linked: the slot's level ...
    uint8_t slot;          // ... and number, to keep the occupancy bits right
    // What the owner does when the timer is due; the wheel only carries it.
    void (*on_due)(struct timer *timer);
};

struct timer_wheel {
    uint64_t now_ms;                 // every slot before this has been taken
    uint64_t armed_count;            // timers with a deadline, those already due included
    struct list_node due;            // taken from their slots, not yet handed out
    uint64_t occupied[WHEEL_LEVELS]; // a bit per non-empty slot
    struct list_node slots[WHEEL_LEVELS][WHEEL_SLOTS];
};

// [timer] starts unarmed and unlinked.
void timer_init(struct timer *timer, void (*on_due)(struct timer *timer));

static inline bool
timer_is_armed(const struct timer *timer)
{
    return timer->deadline_ms != TIMER_NEVER;
}

// An empty wheel standing at [now_ms].
void timer_wheel_init(struct timer_wheel *wheel, uint64_t now_ms);

// Gives [timer] the deadline [deadline_ms], whether it was armed before or not. A
// deadline in the past, or now, is due at the next timer_wheel_take_due.
void timer_wheel_arm(struct timer_wheel *wheel, struct timer *timer,
                     uint64_t deadline_ms);

// Forgets the timer's deadline; it may stay linked. Also legal if it is not armed.
void timer_wheel_disarm(struct timer_wheel *wheel, struct timer *timer);

// Disarms and unlinks: nothing of the wheel points to [timer] any more.
void timer_wheel_unlink(struct timer_wheel *wheel, struct timer *timer);

// Milliseconds from the wheel's time until it may have something to do, 0 if some
// timer is already due, -1 if there is nothing. Never more than the distance to the
// earliest deadline; it may be less, when timers have to move down a level or a
// disarmed one is dropped.
int64_t timer_wheel_next_delay_ms(const struct timer_wheel *wheel);

// Brings the wheel to [now_ms] (a time before the wheel's own is taken as its own).
void timer_wheel_advance(struct timer_wheel *wheel, uint64_t now_ms);

// Hands out one timer whose deadline is at or before the wheel's time, disarmed and
// unlinked; NULL when there is none. Timers come in order of deadline, those of one
// millisecond in the order they were linked. Between two calls any timer may be armed,
// disarmed or unlinked; one armed for a past time meanwhile comes in the same round.
struct timer *timer_wheel_take_due(struct timer_wheel *wheel);

// Checks every invariant; false if one is broken. O(n): for tests and debug builds.
bool timer_wheel_is_consistent(const struct timer_wheel *wheel);

#endif
