// reactor.c: engine, timer wheel and watch table as one thing. See reactor.h.
//
// Called by the hub and by C programs that need no Python. Invariants:
//   1. watch.interest is what the engine was last told, 0 if it watches nothing for us.
//   2. The engine forgets a descriptor before its generation is counted up, so an event
//      with a live token is always one of the present owner.
//   3. The wheel stands at or before the clock, in whole milliseconds rounded down, and
//      deadlines are rounded up: nothing is due early.
//   4. reactor_poll touches the engine and the event array, and nothing else here.
//
// Not here: retries. An error of the engine is the caller's to judge.

#include "reactor.h"

#include "event_index.h"
#include "io_faults.h"
#include "live_counts.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define NS_PER_MS 1000000u

// How far the wheel may lag behind the clock while timers are armed. The wheel counts
// its longest delay from its own time, so a greater lag would cut a year's deadline.
#define MAX_LAG_MS (UINT64_C(3600) * 1000)

// What may be asked for, and what comes unasked.
#define ASKED_EVENTS ((unsigned)(EVENT_READ | EVENT_WRITE | EVENT_PRIORITY))
#define UNASKED_EVENTS ((unsigned)(EVENT_ERROR | EVENT_HANGUP | EVENT_READ_HANGUP))

// Marks an event that was told before.
#define EVENT_ECHOED (UINT32_C(1) << 31)

static uint64_t
add_saturating(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t
round_up_to_ms(uint64_t time_ns)
{
    return time_ns / NS_PER_MS + (time_ns % NS_PER_MS != 0 ? 1 : 0);
}

int
reactor_open(struct reactor *reactor, const struct engine_operations *operations)
{
    assert(operations != NULL);
    reactor->operations = operations;
    int status = operations->open(&reactor->engine);
    if (status < 0) {
        return status;
    }
    reactor->now_ns = operations->now_ns(reactor->engine);
    reactor->event_count = reactor->next_event = reactor->echo.count = 0;
    timer_wheel_init(&reactor->timers, reactor->now_ns / NS_PER_MS);
    watch_table_init(&reactor->watches);
    return 0;
}

// Unlinks every timer, for they outlive the wheel and would point into it.
static void
forget_timers(struct timer_wheel *wheel)
{
    for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
        for (unsigned slot = 0; slot < WHEEL_SLOTS; slot++) {
            struct list_node *head = &wheel->slots[level][slot];
            while (!list_is_empty(head)) {
                timer_wheel_unlink(wheel, CONTAINER_OF(head->next, struct timer, link));
            }
        }
    }
    while (!list_is_empty(&wheel->due)) {
        timer_wheel_unlink(wheel, CONTAINER_OF(wheel->due.next, struct timer, link));
    }
}

void
reactor_close(struct reactor *reactor)
{
    reactor->operations->close(reactor->engine);
    reactor->engine = NULL;
    reactor->event_count = reactor->next_event = 0;
    // Nobody waits any more, so a timer that is still armed was forgotten: it stays counted.
    LIVE_COUNT(LIVE_TIMERS, reactor->timers.armed_count);
    forget_timers(&reactor->timers);
    watch_table_fini(&reactor->watches);
}

int
reactor_after_fork(struct reactor *reactor)
{
    // Whether the new engine can be made or not, the old registrations are not ours.
    int status = reactor->operations->after_fork(reactor->engine);
    for (size_t fd = 0; fd < reactor->watches.capacity; fd++) {
        reactor->watches.watches[fd].interest = 0;
    }
    reactor->event_count = reactor->next_event = reactor->echo.count = 0;
    return status;
}

uint64_t
reactor_now_ns(struct reactor *reactor)
{
    reactor->now_ns = reactor->operations->now_ns(reactor->engine);
    return reactor->now_ns;
}

void
reactor_arm(struct reactor *reactor, struct timer *timer, uint64_t delay_ns)
{
    // Reading the clock holds back all later loads, so the timer is fetched meanwhile. Among
    // a million timers that halves the time.
    __builtin_prefetch(timer, 1);
    reactor_arm_at(reactor, timer, add_saturating(reactor_now_ns(reactor), delay_ns));
}

void
reactor_arm_at(struct reactor *reactor, struct timer *timer, uint64_t deadline_ns)
{
    struct timer_wheel *wheel = &reactor->timers;
    uint64_t now_ms = reactor->now_ns / NS_PER_MS;
    // Without timers nobody moves the wheel on, so it may be far behind. While some are
    // armed it is left alone if it can be: moving it here would let more of them join
    // those that are being taken, and with slow owners that round would never end.
    if (wheel->armed_count == 0 || now_ms > wheel->now_ms + MAX_LAG_MS) {
        timer_wheel_advance(wheel, now_ms);
    }
    timer_wheel_arm(wheel, timer, round_up_to_ms(deadline_ns));
}

int
reactor_claim(struct reactor *reactor, int fd, void *owner)
{
    return watch_table_add(&reactor->watches, fd, owner);
}

void
reactor_release(struct reactor *reactor, int fd)
{
    const struct watch *watch = watch_table_get(&reactor->watches, fd);
    if (watch == NULL) {
        return;
    }
    if (watch->interest != 0) {
        // It may fail only if the file was closed behind our back: then it is gone.
        (void)reactor->operations->remove(reactor->engine, fd);
    }
    watch_table_remove(&reactor->watches, fd);
}

void
reactor_disown(struct reactor *reactor, int fd)
{
    watch_table_remove(&reactor->watches, fd);
}

void *
reactor_owner(const struct reactor *reactor, int fd)
{
    const struct watch *watch = watch_table_get(&reactor->watches, fd);
    return watch == NULL ? NULL : watch->owner;
}

static int
end_registration(struct reactor *reactor, struct watch *watch, int fd)
{
    int status = reactor->operations->remove(reactor->engine, fd);
    watch->interest = 0;
    // Closed behind our back: what was asked for is so already.
    return status == -ENOENT || status == -EBADF ? 0 : status;
}

int
reactor_register(struct reactor *reactor, int fd, unsigned interest,
                 enum engine_trigger trigger)
{
    struct watch *watch = watch_table_get(&reactor->watches, fd);
    if (watch == NULL) {
        return -EBADF;
    }
    interest &= ASKED_EVENTS;
    if (watch->interest == interest && (interest == 0 || watch->trigger == trigger)) {
        return 0;
    }
    // A shared registration cannot be modified, nor become one by it.
    bool is_shared =
        trigger == ENGINE_LEVEL_SHARED || watch->trigger == ENGINE_LEVEL_SHARED;
    int status = 0;
    if (watch->interest != 0 && (interest == 0 || is_shared)) {
        status = end_registration(reactor, watch, fd);
        if (status < 0 || interest == 0) {
            return status;
        }
    }
    uint64_t token = watch_table_token(&reactor->watches, fd);
    if (watch->interest == 0) {
        status = reactor->operations->add(reactor->engine, fd, token, interest, trigger);
    }
    else {
        status =
            reactor->operations->modify(reactor->engine, fd, token, interest, trigger);
        if (status < 0) {
            // Mostly the number was closed behind our back. Whether it means the owner's
            // file again is for the owner to say: the next call adds it afresh.
            (void)end_registration(reactor, watch, fd);
        }
    }
    if (status == 0) {
        watch->interest = (uint16_t)interest;
        watch->trigger = (uint8_t)trigger;
    }
    return status;
}

bool
reactor_is_registered(const struct reactor *reactor, int fd)
{
    const struct watch *watch = watch_table_get(&reactor->watches, fd);
    return watch != NULL && watch->interest != 0;
}

bool
reactor_still_watches(struct reactor *reactor, int fd)
{
    struct watch *watch = watch_table_get(&reactor->watches, fd);
    if (watch == NULL || watch->interest == 0 || watch->trigger == ENGINE_LEVEL_SHARED) {
        return true; // the engine was told nothing, or cannot be asked
    }
    int status = reactor->operations->modify(
        reactor->engine, fd, watch_table_token(&reactor->watches, fd), watch->interest,
        (enum engine_trigger)watch->trigger);
    if (status < 0) {
        watch->interest = 0;
    }
    return status != -ENOENT && status != -EBADF;
}

bool
reactor_short_read_is_empty(const struct reactor *reactor)
{
    return reactor->operations->short_read_is_empty(reactor->engine);
}

void
reactor_tell_again(struct reactor *reactor)
{
    int fd;
    while ((fd = io_faults_take_owed()) >= 0) {
        const struct watch *watch = watch_table_get(&reactor->watches, fd);
        if (watch != NULL && watch->interest != 0 && watch->trigger == ENGINE_EDGE) {
            // It may fail only if the file was closed behind our back.
            (void)reactor->operations->modify(reactor->engine, fd,
                                              watch_table_token(&reactor->watches, fd),
                                              watch->interest, ENGINE_EDGE);
        }
    }
}

int64_t
reactor_wait_limit(struct reactor *reactor, int64_t limit_ns)
{
    if (io_faults_are_on()) {
        reactor_tell_again(reactor);
    }
    if (limit_ns == 0 || reactor->next_event < reactor->event_count ||
        (HARD_MODE && reactor->echo.count > 0)) {
        return 0;
    }
    int64_t delay_ms = timer_wheel_next_delay_ms(&reactor->timers);
    if (delay_ms <= 0) {
        return delay_ms == 0 ? 0 : limit_ns;
    }
    // Counted from the wheel's time, which is before now: work in absolute nanoseconds.
    // The sum stays below 2^64 for 500 years of uptime.
    uint64_t wheel_ns = (reactor->timers.now_ms + (uint64_t)delay_ms) * NS_PER_MS;
    uint64_t now_ns = reactor_now_ns(reactor);
    if (wheel_ns <= now_ns) {
        return 0;
    }
    uint64_t delay_ns = wheel_ns - now_ns;
    if (limit_ns < 0 || delay_ns < (uint64_t)limit_ns) {
        return delay_ns > INT64_MAX ? INT64_MAX : (int64_t)delay_ns;
    }
    return limit_ns;
}

// Lets events that repeat one before them, among all [count], join that one.
static void
join_events(struct reactor *reactor, int count)
{
    struct event_index index;
    event_index_clear(&index);
    reactor->event_count = 0;
    for (int i = 0; i < count; i++) {
        struct engine_event event = reactor->events[i]; // it may be written over
        event_index_join(&index, reactor->events, &reactor->event_count, event.token,
                         event.ready);
    }
}

// In hard mode: keeps an event that is taken for the next poll to tell again, with nothing
// behind it. Only edges, which say that there was news: whoever takes one tries, and may be
// told that nothing is there. A level says what is the case.
// not reached: no hard mode
static void
keep_echo(struct event_echo *echo, const struct engine_event *event,
          const struct watch *watch)
{
    if (watch->trigger == ENGINE_EDGE && (event->ready & EVENT_ECHOED) == 0 &&
        echo->count < (int)(sizeof(echo->events) / sizeof(echo->events[0]))) {
        echo->events[echo->count++] =
            (struct engine_event){event->token, event->ready | EVENT_ECHOED};
    }
}

// Puts what was kept behind the [count] new events at [place], as far as there is [room].
// How many there are then.
// not reached: no hard mode
static int
add_echo(struct event_echo *echo, struct engine_event *place, int count, int room)
{
    for (int i = 0; i < echo->count && count < room; i++) {
        place[count++] = echo->events[i];
    }
    echo->count = 0;
    return count;
}

int
reactor_poll(struct reactor *reactor, int64_t timeout_ns)
{
    int kept_count = reactor->event_count - reactor->next_event;
    if (reactor->next_event > 0) {
        memmove(reactor->events, reactor->events + reactor->next_event,
                (size_t)kept_count * sizeof(reactor->events[0]));
        reactor->next_event = 0;
        reactor->event_count = kept_count;
    }
    if (kept_count == REACTOR_MAX_EVENTS) {
        return kept_count;
    }
    struct engine_event *place = reactor->events + kept_count;
    int room = REACTOR_MAX_EVENTS - kept_count;
    bool has_echo = HARD_MODE && reactor->echo.count > 0;
    int count = reactor->operations->wait(reactor->engine, place, room,
                                          has_echo ? 0 : timeout_ns);
    if (count < 0) {
        return count;
    }
    if (HARD_MODE) {
        count = add_echo(&reactor->echo, place, count, room);
    }
    // What a level-triggered registration says at every poll is one event as long as
    // nobody takes it.
    if (kept_count > 0 || has_echo) {
        join_events(reactor, kept_count + count);
    }
    else {
        reactor->event_count = count;
    }
    return reactor->event_count;
}

void
reactor_settle(struct reactor *reactor)
{
    // Disarmed timers that are still linked are no reason: they are dropped when the
    // wheel next moves.
    if (reactor->timers.armed_count > 0) {
        timer_wheel_advance(&reactor->timers, reactor_now_ns(reactor) / NS_PER_MS);
    }
}

void *
reactor_take_event(struct reactor *reactor, unsigned *ready)
{
    while (reactor->next_event < reactor->event_count) {
        const struct engine_event *event = &reactor->events[reactor->next_event++];
        const struct watch *watch = watch_table_find(&reactor->watches, event->token);
        if (watch == NULL || watch->interest == 0) {
            continue; // its owner is gone, or waits for nothing any more
        }
        // The interest may have shrunk since. Nothing is lost by forgetting: asking for
        // the rest again reports it again.
        unsigned wanted = event->ready & (watch->interest | UNASKED_EVENTS);
        if (wanted != 0) {
            if (HARD_MODE) {
                keep_echo(&reactor->echo, event, watch);
            }
            *ready = wanted;
            return watch->owner;
        }
    }
    reactor->next_event = reactor->event_count = 0;
    return NULL;
}

bool
reactor_withdraw_events(struct reactor *reactor, const void *owner)
{
    bool had_one = false;
    int end = reactor->next_event;
    for (int i = end; i < reactor->event_count; i++) {
        const struct watch *watch =
            watch_table_find(&reactor->watches, reactor->events[i].token);
        if (watch == NULL || watch->interest == 0) {
            continue;
        }
        if (watch->owner == owner) {
            had_one = true;
            continue;
        }
        reactor->events[end++] = reactor->events[i];
    }
    reactor->event_count = end;
    return had_one;
}

struct timer *
reactor_take_due(struct reactor *reactor)
{
    return timer_wheel_take_due(&reactor->timers);
}
