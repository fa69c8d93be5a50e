// reactor.h: engine, timer wheel and watch table as one thing.
//
// One turn is: wait (reactor_poll), look at the clock (reactor_settle), then take what is ready (reactor_take_event, until
// it gives NULL) and what is due (reactor_take_due, until NULL). Between any two calls
// the caller may claim, register, release and arm as it likes: an event whose owner is
// gone is dropped when its turn comes.
//
// Claiming and registering are apart. A claim says whose a descriptor is; the engine is
// told of it only when somebody first has to wait, for many short connections never do.
//
// Not here: coroutines, callbacks, what an owner is.

#ifndef CORONET_REACTOR_H
#define CORONET_REACTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "engine.h"
#include "hard_mode.h"
#include "timer_wheel.h"
#include "watch_table.h"

#define REACTOR_MAX_EVENTS 256

// In hard mode: events that were taken, and that the next poll tells a second time.
struct event_echo {
    int count;
    struct engine_event events[HARD_OR_USUAL(REACTOR_MAX_EVENTS, 1)];
};

struct reactor {
    const struct engine_operations *operations;
    struct engine *engine; // owned
    struct timer_wheel timers;
    struct watch_table watches;
    uint64_t now_ns; // the clock as last read
    int event_count; // events fetched ...
    int next_event;  // ... and how many of them have been taken
    struct engine_event events[REACTOR_MAX_EVENTS];
    struct event_echo echo;
};

// 0, or -errno with nothing left behind.
int reactor_open(struct reactor *reactor, const struct engine_operations *operations);

// Closes the engine. Claimed descriptors stay open: they are their owners'. Armed timers
// are forgotten; a debug build takes them, and claims that were not given up, for leaks.
void reactor_close(struct reactor *reactor);

// In a forked child: a fresh engine. Claims and timers stay, registrations and fetched
// events are gone. 0 or -errno.
int reactor_after_fork(struct reactor *reactor);

// Reads the clock, in nanoseconds.
uint64_t reactor_now_ns(struct reactor *reactor);

// Arms [timer] for [delay_ns] from a fresh reading of the clock, rounded up to the wheel's
// milliseconds, so that it never fires early.
void reactor_arm(struct reactor *reactor, struct timer *timer, uint64_t delay_ns);

// The same for a point of the reactor's clock, without reading it.
void reactor_arm_at(struct reactor *reactor, struct timer *timer, uint64_t deadline_ns);

// Makes [owner] the owner of [fd]. 0, -EBADF, -EEXIST (it has one), -ENOMEM.
int reactor_claim(struct reactor *reactor, int fd, void *owner);

// Ends registration and claim, before the descriptor is closed. Legal if there are none.
void reactor_release(struct reactor *reactor, int fd);

// Ends the claim alone: of an owner that outlives the reactor, which is about to be closed.
void reactor_disown(struct reactor *reactor, int fd);

// The owner of [fd] or NULL. Borrowed.
void *reactor_owner(const struct reactor *reactor, int fd);

// Has the engine watch the claimed [fd] for exactly [interest] in the given manner; no
// system call is made if it does so already. Interest 0 ends the registration. 0 or
// -errno as engine.h says.
int reactor_register(struct reactor *reactor, int fd, unsigned interest,
                     enum engine_trigger trigger);

// True if the engine watches [fd] for its owner.
bool reactor_is_registered(const struct reactor *reactor, int fd);

// Asks the engine whether it still watches [fd]: false if it was told to and does not, for
// then the number was closed behind our back. Readiness may be reported once more.
bool reactor_still_watches(struct reactor *reactor, int fd);

// Whether a short read from a TCP socket proves that there is no more, as engine.h says.
bool reactor_short_read_is_empty(const struct reactor *reactor);

// Faults are injected (io_faults.h), and a call was told EAGAIN, or moved less than it could,
// though there is more: watching the descriptor anew reports what it is ready for once more.
// Legal if there is no such descriptor. reactor_wait_limit() does it.
void reactor_tell_again(struct reactor *reactor);

// How long a wait may be at most: [limit_ns] (-1: no limit), or less if a timer is due
// before; 0 if events or due timers are there already. Reads the clock if it must.
int64_t reactor_wait_limit(struct reactor *reactor, int64_t limit_ns);

// Fetches events, waiting up to [timeout_ns] for the first. Events not taken yet stay;
// new ones join behind them as far as there is room, those of one registration as one
// event. Returns how many there are now,
// stale ones included, or -errno (-EINTR after a signal). It touches only the engine and
// the event array, so the caller may give up a lock for the length of this call while
// others claim, release and arm under that lock; reactor_settle() comes after it.
int reactor_poll(struct reactor *reactor, int64_t timeout_ns);

// After reactor_poll, with the lock held again: reads the clock, once, if timers are
// armed, and brings the wheel to that time.
void reactor_settle(struct reactor *reactor);

// Takes [owner]'s events out of the line, and those whose owner is gone; the others keep
// their order. True if [owner] had one.
bool reactor_withdraw_events(struct reactor *reactor, const void *owner);

// Takes the next event that has an owner: the owner (borrowed), with what is ready in
// [*ready]; NULL when none is left.
void *reactor_take_event(struct reactor *reactor, unsigned *ready);

// Takes the next timer that is due, disarmed and unlinked; NULL when none is left.
struct timer *reactor_take_due(struct reactor *reactor);

#endif
