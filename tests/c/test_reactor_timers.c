// test_reactor_timers.c: the reactor's timers and the limits of its waits.

// For socketpair and the like under -std=c11 with glibc.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include "reactor_cases.h"

static void
test_reactor_timer_is_due_at_its_millisecond(void)
{
    static const uint64_t delays_ns[] = {1,      MS - 1,     MS,  MS + 1,   15 * MS,
                                         SECOND, SECOND + 1, DAY, 365 * DAY};
    struct timer timer;
    timer_init(&timer, NULL);
    set_up();
    for (size_t i = 0; i < COUNT_OF(delays_ns); i++) {
        for (int j = 0; j < 20; j++) {
            // From any point within a millisecond, and with the wheel any time behind.
            fake_engine_advance(reactor.engine, random_magnitude(50));
            uint64_t deadline_ns = now() + delays_ns[i];
            reactor_arm(&reactor, &timer, delays_ns[i]);
            check_due_at(&timer, deadline_ns);
        }
    }
    tear_down();
}

static void
test_reactor_no_delay_is_due_without_waiting(void)
{
    struct timer timer;
    timer_init(&timer, NULL);
    set_up();
    uint64_t start_ns = now();
    reactor_arm(&reactor, &timer, 0);
    CHECK_INT(reactor_wait_limit(&reactor, -1), 0);
    turn(-1);
    CHECK_POINTER(reactor_take_due(&reactor), &timer);
    CHECK_UINT(now(), start_ns);
    tear_down();
}

static void
test_reactor_many_timers_are_never_early_and_in_order(void)
{
    enum { TIMERS = 300 };
    static struct timer timers[TIMERS];
    static uint64_t deadlines_ns[TIMERS];
    set_up();
    for (size_t i = 0; i < TIMERS; i++) {
        timer_init(&timers[i], NULL);
        fake_engine_advance(reactor.engine, random_magnitude(22));
        uint64_t delay_ns = random_magnitude(54);
        deadlines_ns[i] = now() + delay_ns;
        if (random_below(2) == 0) {
            reactor_arm(&reactor, &timers[i], delay_ns);
        }
        else {
            reactor_arm_at(&reactor, &timers[i], deadlines_ns[i]);
        }
    }
    size_t due_count = 0;
    uint64_t last_ms = 0;
    for (int i = 0; i < 100000 && due_count < TIMERS; i++) {
        turn(-1);
        struct timer *timer;
        while ((timer = reactor_take_due(&reactor)) != NULL) {
            uint64_t deadline_ns = deadlines_ns[timer - timers];
            uint64_t deadline_ms = (deadline_ns + MS - 1) / MS;
            CHECK(now() >= deadline_ns);
            CHECK(deadline_ms >= last_ms);
            last_ms = deadline_ms;
            due_count++;
        }
        if (due_count < TIMERS) {
            // Nothing that is due waits for a later turn.
            CHECK(reactor_wait_limit(&reactor, -1) > 0);
        }
    }
    CHECK_UINT(due_count, TIMERS);
    CHECK_INT(reactor_wait_limit(&reactor, -1), -1);
    tear_down();
}

static void
test_reactor_year_is_not_cut_after_long_idleness(void)
{
    struct timer timer, earlier;
    timer_init(&timer, NULL);
    timer_init(&earlier, NULL);
    set_up();
    // Nothing armed for three years: the wheel stands where it stood.
    fake_engine_advance(reactor.engine, 3 * 365 * DAY);
    uint64_t deadline_ns = now() + 365 * DAY;
    reactor_arm(&reactor, &timer, 365 * DAY);
    check_due_at(&timer, deadline_ns);
    // The same behind an armed timer, in a wait of another thread that goes on.
    reactor_arm(&reactor, &earlier, 300 * DAY);
    fake_engine_advance(reactor.engine, 200 * DAY);
    deadline_ns = now() + 365 * DAY;
    reactor_arm(&reactor, &timer, 365 * DAY);
    check_due_at(&earlier, now() + 100 * DAY);
    check_due_at(&timer, deadline_ns);
    tear_down();
}

static void
test_reactor_huge_delay_is_never_due_soon(void)
{
    struct timer timer;
    timer_init(&timer, NULL);
    set_up();
    reactor_arm(&reactor, &timer, UINT64_MAX);
    CHECK(timer_is_armed(&timer));
    CHECK(reactor_wait_limit(&reactor, -1) > 0);
    fake_engine_advance(reactor.engine, 365 * DAY);
    turn(0);
    CHECK_POINTER(reactor_take_due(&reactor), NULL);
    tear_down();
}

static void
test_reactor_reads_clock_only_for_timers(void)
{
    struct timer timer;
    timer_init(&timer, NULL);
    set_up();
    turn(5 * (int64_t)MS);
    CHECK_INT(calls.clock_count, 0);
    reactor_arm(&reactor, &timer, 10 * MS);
    CHECK_INT(calls.clock_count, 1);
    reactor_arm_at(&reactor, &timer, reactor.now_ns + 20 * MS);
    CHECK_INT(calls.clock_count, 1);
    CHECK_INT(reactor_wait_limit(&reactor, 0), 0);
    CHECK_INT(calls.clock_count, 1);
    reactor_settle(&reactor);
    CHECK_INT(calls.clock_count, 2);
    // Disarmed timers need no clock, linked or not.
    timer_wheel_disarm(&reactor.timers, &timer);
    fake_engine_advance(reactor.engine, SECOND);
    turn(5 * (int64_t)MS);
    CHECK_INT(calls.clock_count, 2);
    CHECK_POINTER(reactor_take_due(&reactor), NULL);
    timer_wheel_unlink(&reactor.timers, &timer);
    tear_down();
}

static void
test_reactor_wait_limit_is_the_nearest_of_all(void)
{
    struct timer timer;
    int pair[2];
    timer_init(&timer, NULL);
    make_pair(pair);
    set_up();
    CHECK_INT(reactor_wait_limit(&reactor, -1), -1);
    CHECK_INT(reactor_wait_limit(&reactor, 12345), 12345);
    CHECK_INT(reactor_wait_limit(&reactor, 0), 0);
    // After half an hour without timers the wheel is not where the clock is. The wait
    // goes straight to the deadline all the same, if a level of the wheel spans it.
    fake_engine_advance(reactor.engine, 1800 * SECOND);
    reactor_arm(&reactor, &timer, 3 * MS);
    CHECK_INT(reactor_wait_limit(&reactor, -1), (WHEEL_SLOTS == 2 ? 2 : 3) * (int64_t)MS);
    timer_wheel_unlink(&reactor.timers, &timer);
    fake_engine_advance(reactor.engine, 100);
    reactor_arm(&reactor, &timer, 3 * MS);
    // To the end of the millisecond in which it is over.
    CHECK_INT(reactor_wait_limit(&reactor, -1), 4 * (int64_t)MS - 100);
    CHECK_INT(reactor_wait_limit(&reactor, INT64_MAX), 4 * (int64_t)MS - 100);
    CHECK_INT(reactor_wait_limit(&reactor, (int64_t)MS), MS);
    CHECK_INT(reactor_claim(&reactor, pair[0], &owners[0]), 0);
    CHECK_INT(reactor_register(&reactor, pair[0], EVENT_WRITE, ENGINE_EDGE), 0);
    turn((int64_t)MS);
    CHECK_INT(reactor_wait_limit(&reactor, -1), 0);
    CHECK_UINT(take_only_event(&owners[0]), EVENT_WRITE);
    fake_engine_advance(reactor.engine, 4 * MS);
    CHECK_INT(reactor_wait_limit(&reactor, -1), 0);
    reactor_settle(&reactor);
    CHECK_INT(reactor_wait_limit(&reactor, -1), 0);
    CHECK_POINTER(reactor_take_due(&reactor), &timer);
    CHECK_INT(reactor_wait_limit(&reactor, -1), -1);
    tear_down();
    close_pair(pair);
}

static void
test_reactor_close_unlinks_timers(void)
{
    struct timer timers[4];
    set_up();
    for (size_t i = 0; i < COUNT_OF(timers); i++) {
        timer_init(&timers[i], NULL);
        reactor_arm(&reactor, &timers[i], i * i * 1000 * SECOND);
    }
    timer_wheel_disarm(&reactor.timers, &timers[3]);
    turn(0);
    reactor_close(&reactor);
    for (size_t i = 0; i < COUNT_OF(timers); i++) {
        CHECK(!timer_is_armed(&timers[i]));
        CHECK(!list_is_linked(&timers[i].link));
    }
}

int
main(void)
{
    harness_limit_time(120);
    RUN(test_reactor_timer_is_due_at_its_millisecond);
    RUN(test_reactor_no_delay_is_due_without_waiting);
    RUN(test_reactor_many_timers_are_never_early_and_in_order);
    RUN(test_reactor_year_is_not_cut_after_long_idleness);
    RUN(test_reactor_huge_delay_is_never_due_soon);
    RUN(test_reactor_reads_clock_only_for_timers);
    RUN(test_reactor_wait_limit_is_the_nearest_of_all);
    RUN(test_reactor_close_unlinks_timers);
    return harness_finish("reactor timers");
}
