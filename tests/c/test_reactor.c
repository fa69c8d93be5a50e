// test_reactor.c: claims, registrations and events of the reactor.
// Its timers are in test_reactor_timers.c.

// For socketpair and the like under -std=c11 with glibc.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include "reactor_cases.h"

#include <fcntl.h>

static void
test_reactor_claim_has_one_owner(void)
{
    int pair[2];
    make_pair(pair);
    set_up();
    CHECK_POINTER(reactor_owner(&reactor, pair[0]), NULL);
    CHECK_INT(reactor_register(&reactor, pair[0], EVENT_READ, ENGINE_EDGE), -EBADF);
    reactor_release(&reactor, pair[0]);
    CHECK_INT(reactor_claim(&reactor, -1, &owners[0]), -EBADF);
    CHECK_INT(reactor_claim(&reactor, pair[0], &owners[0]), 0);
    CHECK_INT(reactor_claim(&reactor, pair[0], &owners[1]), -EEXIST);
    CHECK_POINTER(reactor_owner(&reactor, pair[0]), &owners[0]);
    reactor_release(&reactor, pair[0]);
    CHECK_POINTER(reactor_owner(&reactor, pair[0]), NULL);
    CHECK_INT(reactor_claim(&reactor, pair[0], &owners[1]), 0);
    // All without the engine: nobody has waited.
    CHECK_INT(calls.add_count + calls.modify_count + calls.remove_count, 0);
    tear_down();
    close_pair(pair);
}

static void
check_calls(int add_count, int modify_count, int remove_count)
{
    CHECK_INT(calls.add_count, add_count);
    CHECK_INT(calls.modify_count, modify_count);
    CHECK_INT(calls.remove_count, remove_count);
}

static void
test_reactor_register_makes_only_the_calls_it_needs(void)
{
    int pair[2];
    unsigned both = EVENT_READ | EVENT_WRITE;
    make_pair(pair);
    set_up();
    int fd = pair[0];
    CHECK_INT(reactor_claim(&reactor, fd, &owners[0]), 0);
    CHECK_INT(reactor_register(&reactor, fd, 0, ENGINE_EDGE), 0);
    check_calls(0, 0, 0);
    CHECK_INT(reactor_register(&reactor, fd, both, ENGINE_EDGE), 0);
    CHECK_INT(reactor_register(&reactor, fd, both, ENGINE_EDGE), 0);
    // What comes unasked cannot be asked for.
    CHECK_INT(reactor_register(&reactor, fd, both | EVENT_HANGUP, ENGINE_EDGE), 0);
    check_calls(1, 0, 0);
    CHECK_INT(reactor_register(&reactor, fd, EVENT_READ, ENGINE_EDGE), 0);
    CHECK_INT(reactor_register(&reactor, fd, EVENT_READ, ENGINE_LEVEL), 0);
    check_calls(1, 2, 0);
    // To, within and from a shared registration only by a new one.
    CHECK_INT(reactor_register(&reactor, fd, EVENT_READ, ENGINE_LEVEL_SHARED), 0);
    check_calls(2, 2, 1);
    CHECK_INT(reactor_register(&reactor, fd, EVENT_WRITE, ENGINE_LEVEL_SHARED), 0);
    check_calls(3, 2, 2);
    CHECK_INT(reactor_register(&reactor, fd, EVENT_WRITE, ENGINE_LEVEL), 0);
    check_calls(4, 2, 3);
    CHECK_INT(reactor_register(&reactor, fd, 0, ENGINE_LEVEL), 0);
    CHECK_INT(reactor_register(&reactor, fd, 0, ENGINE_EDGE), 0);
    check_calls(4, 2, 4);
    CHECK_INT(reactor_register(&reactor, fd, EVENT_WRITE, ENGINE_EDGE), 0);
    turn(-1);
    CHECK_UINT(take_only_event(&owners[0]), EVENT_WRITE);
    reactor_release(&reactor, fd);
    check_calls(5, 2, 5);
    CHECK_INT(fake_engine.remove(reactor.engine, fd), -ENOENT);
    tear_down();
    close_pair(pair);
}

static void
test_reactor_register_passes_errors_on(void)
{
    int fd = open("/", O_RDONLY);
    REQUIRE(fd >= 0);
    set_up();
    CHECK_INT(reactor_claim(&reactor, fd, &owners[0]), 0);
    CHECK_INT(reactor_register(&reactor, fd, EVENT_READ, ENGINE_EDGE), -EPERM);
    // It was not registered, so it is asked for again.
    CHECK_INT(reactor_register(&reactor, fd, EVENT_READ, ENGINE_EDGE), -EPERM);
    CHECK_INT(reactor_register(&reactor, fd, 0, ENGINE_EDGE), 0);
    tear_down();
    close(fd);
}

static void
test_reactor_number_closed_behind_its_back_is_survived(void)
{
    int pair[2];
    set_up();
    for (int i = 0; i < 3; i++) {
        make_pair(pair);
        int fd = pair[0];
        CHECK_INT(reactor_claim(&reactor, fd, &owners[0]), 0);
        CHECK_INT(reactor_register(&reactor, fd, EVENT_READ, ENGINE_LEVEL), 0);
        close_pair(pair);
        if (i == 1) {
            CHECK_INT(reactor_register(&reactor, fd, 0, ENGINE_LEVEL), 0);
        }
        make_pair(pair);
        REQUIRE(pair[0] == fd);
        if (i == 2) {
            // It says so once, and can be told afresh.
            CHECK_INT(reactor_register(&reactor, fd, EVENT_WRITE, ENGINE_LEVEL), -ENOENT);
            CHECK_INT(reactor_register(&reactor, fd, EVENT_WRITE, ENGINE_LEVEL), 0);
            turn(-1);
            CHECK_UINT(take_only_event(&owners[0]), EVENT_WRITE);
        }
        reactor_release(&reactor, fd);
        close_pair(pair);
    }
    tear_down();
}

static void
test_reactor_asks_the_engine_whether_it_still_watches(void)
{
    int pair[2];
    make_pair(pair);
    set_up();
    int fd = pair[0];
    CHECK(reactor_still_watches(&reactor, fd)); // nobody has told it anything
    CHECK_INT(reactor_claim(&reactor, fd, &owners[0]), 0);
    CHECK(reactor_still_watches(&reactor, fd));
    check_calls(0, 0, 0);
    CHECK_INT(reactor_register(&reactor, fd, EVENT_READ, ENGINE_EDGE), 0);
    CHECK(reactor_still_watches(&reactor, fd));
    check_calls(1, 1, 0);
    // It is watched as before.
    CHECK_INT(io_send(pair[1], "x", 1), 1);
    turn(-1);
    CHECK_UINT(take_only_event(&owners[0]), EVENT_READ);

    close_pair(pair);
    CHECK(!reactor_still_watches(&reactor, fd));
    CHECK(!reactor_is_registered(&reactor, fd));
    make_pair(pair);
    REQUIRE(pair[0] == fd);
    CHECK_INT(reactor_register(&reactor, fd, EVENT_READ, ENGINE_EDGE), 0);
    close_pair(pair);
    make_pair(pair);
    REQUIRE(pair[0] == fd);
    CHECK(!reactor_still_watches(&reactor, fd)); // the number means another file
    reactor_release(&reactor, fd);
    close_pair(pair);
    tear_down();
}

static void
test_reactor_event_of_reused_number_is_dropped(void)
{
    int first[2], second[2];
    unsigned ready = 0;
    make_pair(first);
    make_pair(second);
    set_up();
    CHECK_INT(reactor_claim(&reactor, first[0], &owners[0]), 0);
    CHECK_INT(reactor_claim(&reactor, second[0], &owners[1]), 0);
    CHECK_INT(reactor_register(&reactor, first[0], EVENT_WRITE, ENGINE_EDGE), 0);
    CHECK_INT(reactor_register(&reactor, second[0], EVENT_WRITE, ENGINE_EDGE), 0);
    turn(-1);
    CHECK_INT(reactor.event_count, 2);
    // Whichever comes first closes the other, whose number goes to somebody new.
    void *taken = reactor_take_event(&reactor, &ready);
    int *other = taken == &owners[0] ? second : first;
    int fd = other[0];
    reactor_release(&reactor, fd);
    close_pair(other);
    make_pair(other);
    REQUIRE(other[0] == fd);
    CHECK_INT(reactor_claim(&reactor, fd, &owners[2]), 0);
    CHECK_INT(reactor_register(&reactor, fd, EVENT_WRITE, ENGINE_EDGE), 0);
    CHECK_POINTER(reactor_take_event(&reactor, &ready), NULL);
    // Its own event is not lost with the stale one.
    turn(-1);
    CHECK_UINT(take_only_event(&owners[2]), EVENT_WRITE);
    reactor_release(&reactor, fd);
    tear_down();
    close_pair(first);
    close_pair(second);
}

static void
test_reactor_event_nobody_asks_for_any_more_is_dropped(void)
{
    int pair[2];
    unsigned ready;
    make_pair(pair);
    set_up();
    CHECK_INT(reactor_claim(&reactor, pair[0], &owners[0]), 0);
    CHECK_INT(reactor_register(&reactor, pair[0], EVENT_WRITE, ENGINE_EDGE), 0);
    turn(-1);
    CHECK_INT(reactor_register(&reactor, pair[0], EVENT_READ, ENGINE_EDGE), 0);
    CHECK_POINTER(reactor_take_event(&reactor, &ready), NULL);
    // Asking again reports it again, edge or not.
    CHECK_INT(reactor_register(&reactor, pair[0], EVENT_WRITE, ENGINE_EDGE), 0);
    turn(-1);
    CHECK_INT(reactor_register(&reactor, pair[0], 0, ENGINE_EDGE), 0);
    CHECK_POINTER(reactor_take_event(&reactor, &ready), NULL);
    // What comes unasked is passed on with any interest.
    close(pair[1]);
    CHECK_INT(reactor_register(&reactor, pair[0], EVENT_READ, ENGINE_EDGE), 0);
    turn(-1);
    CHECK_UINT(take_only_event(&owners[0]),
               EVENT_READ | EVENT_HANGUP | EVENT_READ_HANGUP);
    // But not to one who asks for nothing.
    CHECK_INT(reactor_register(&reactor, pair[0], EVENT_READ, ENGINE_LEVEL), 0);
    forget_echo();
    CHECK_INT(reactor_poll(&reactor, -1), 1);
    CHECK_INT(reactor_register(&reactor, pair[0], 0, ENGINE_LEVEL), 0);
    CHECK_POINTER(reactor_take_event(&reactor, &ready), NULL);
    tear_down();
    close(pair[0]);
}

#ifdef CORONET_HARD_MODE

static void
test_reactor_hard_mode_tells_each_event_twice(void)
{
    int pairs[2][2];
    unsigned ready;
    set_up();
    for (int i = 0; i < 2; i++) {
        make_pair(pairs[i]);
        CHECK_INT(reactor_claim(&reactor, pairs[i][0], &owners[i]), 0);
        CHECK_INT(reactor_register(&reactor, pairs[i][0], EVENT_WRITE, ENGINE_EDGE), 0);
    }
    CHECK_INT(reactor_poll(&reactor, -1), 2);
    while (reactor_take_event(&reactor, &ready) != NULL) {
    }
    // No wait: it is there already. Not of an owner that is gone, and not a third time.
    CHECK_INT(reactor_wait_limit(&reactor, -1), 0);
    reactor_release(&reactor, pairs[0][0]);
    CHECK_INT(reactor_poll(&reactor, -1), 2);
    CHECK_UINT(take_only_event(&owners[1]), EVENT_WRITE);
    CHECK_INT(reactor_wait_limit(&reactor, -1), -1);
    CHECK_INT(reactor_poll(&reactor, 0), 0);
    tear_down();
    close_pair(pairs[0]);
    close_pair(pairs[1]);
}
#endif

static void
test_reactor_events_not_taken_are_carried_over(void)
{
    enum { PAIRS = 150 };
    static int pairs[PAIRS][2];
    static int seen[2 * PAIRS];
    unsigned ready;
    memset(seen, 0, sizeof(seen));
    set_up();
    for (int i = 0; i < PAIRS; i++) {
        make_pair(pairs[i]);
        for (int j = 0; j < 2; j++) {
            CHECK_INT(reactor_claim(&reactor, pairs[i][j], &seen[2 * i + j]), 0);
            CHECK_INT(reactor_register(&reactor, pairs[i][j], EVENT_WRITE, ENGINE_EDGE),
                      0);
        }
    }
    forget_echo();
    CHECK_INT(reactor_poll(&reactor, -1), REACTOR_MAX_EVENTS);
    // There is no room, so nothing is asked for.
    forget_echo();
    CHECK_INT(reactor_poll(&reactor, -1), REACTOR_MAX_EVENTS);
    CHECK_INT(calls.wait_count, 1);
    for (int i = 0; i < 100; i++) {
        ++*(int *)reactor_take_event(&reactor, &ready);
    }
    // A signal loses nothing.
    calls.forced_wait_status = -EINTR;
    CHECK_INT(reactor_poll(&reactor, -1), -EINTR);
    calls.forced_wait_status = 0;
    forget_echo();
    CHECK_INT(reactor_poll(&reactor, 0), 2 * PAIRS - 100);
    int *owner;
    while ((owner = reactor_take_event(&reactor, &ready)) != NULL) {
        ++*owner;
    }
    forget_echo();
    CHECK_INT(reactor_poll(&reactor, 0), 0);
    for (int i = 0; i < 2 * PAIRS; i++) {
        CHECK_INT(seen[i], 1);
    }
    tear_down();
    for (int i = 0; i < PAIRS; i++) {
        close_pair(pairs[i]);
    }
}

static void
test_reactor_repeated_events_join_the_one_not_taken(void)
{
    int pair[2];
    unsigned ready;
    make_pair(pair);
    set_up();
    for (int i = 0; i < 2; i++) {
        CHECK_INT(reactor_claim(&reactor, pair[i], &owners[i]), 0);
    }
    CHECK_INT(reactor_register(&reactor, pair[0], EVENT_WRITE, ENGINE_LEVEL), 0);
    for (int i = 0; i < REACTOR_MAX_EVENTS + 1; i++) {
        forget_echo();
        CHECK_INT(reactor_poll(&reactor, 0), 1);
    }
    // What else becomes ready meanwhile is added to it; others stand behind it.
    CHECK_INT(reactor_register(&reactor, pair[0], EVENT_READ | EVENT_WRITE, ENGINE_LEVEL),
              0);
    CHECK_INT(reactor_register(&reactor, pair[1], EVENT_WRITE, ENGINE_EDGE), 0);
    REQUIRE(write(pair[1], "x", 1) == 1);
    forget_echo();
    CHECK_INT(reactor_poll(&reactor, 0), 2);
    CHECK_POINTER(reactor_take_event(&reactor, &ready), &owners[0]);
    CHECK_UINT(ready, EVENT_READ | EVENT_WRITE);
    CHECK_UINT(take_only_event(&owners[1]), EVENT_WRITE);
    // Once taken it is a new one.
    forget_echo();
    CHECK_INT(reactor_poll(&reactor, 0), 1);
    tear_down();
    close_pair(pair);
}

static void
test_reactor_withdrawn_events_leave_the_others_in_order(void)
{
    int pairs[2][2];
    unsigned ready;
    set_up();
    for (int i = 0; i < 4; i++) {
        if (i % 2 == 0) {
            make_pair(pairs[i / 2]);
        }
        int fd = pairs[i / 2][i % 2];
        CHECK_INT(reactor_claim(&reactor, fd, &owners[i]), 0);
        CHECK_INT(reactor_register(&reactor, fd, EVENT_WRITE, ENGINE_EDGE), 0);
        // One by one, so that the order is known.
        forget_echo();
        CHECK_INT(reactor_poll(&reactor, 0), i + 1);
    }
    CHECK(!reactor_withdraw_events(&reactor, &pairs));
    CHECK(reactor_withdraw_events(&reactor, &owners[1]));
    CHECK(!reactor_withdraw_events(&reactor, &owners[1]));
    CHECK_POINTER(reactor_take_event(&reactor, &ready), &owners[0]);
    // A stale one goes, too.
    reactor_release(&reactor, pairs[1][0]);
    CHECK(!reactor_withdraw_events(&reactor, &owners[0]));
    CHECK_INT(reactor.event_count - reactor.next_event, 1);
    CHECK_UINT(take_only_event(&owners[3]), EVENT_WRITE);
    tear_down();
    close_pair(pairs[0]);
    close_pair(pairs[1]);
}

static void
test_reactor_after_fork_keeps_claims_and_timers_only(void)
{
    struct timer timer;
    unsigned ready;
    int pair[2];
    timer_init(&timer, NULL);
    make_pair(pair);
    set_up();
    uint64_t deadline_ns = now() + SECOND;
    reactor_arm(&reactor, &timer, SECOND);
    CHECK_INT(reactor_claim(&reactor, pair[0], &owners[0]), 0);
    CHECK_INT(reactor_register(&reactor, pair[0], EVENT_WRITE, ENGINE_LEVEL), 0);
    forget_echo();
    CHECK_INT(reactor_poll(&reactor, -1), 1);
    CHECK_INT(reactor_after_fork(&reactor), 0);
    forget_echo();
    CHECK_INT(reactor_poll(&reactor, 0), 0);
    CHECK_POINTER(reactor_take_event(&reactor, &ready), NULL);
    CHECK_POINTER(reactor_owner(&reactor, pair[0]), &owners[0]);
    CHECK_INT(reactor_register(&reactor, pair[0], EVENT_WRITE, ENGINE_LEVEL), 0);
    forget_echo();
    CHECK_INT(reactor_poll(&reactor, -1), 1);
    CHECK_UINT(take_only_event(&owners[0]), EVENT_WRITE);
    reactor_release(&reactor, pair[0]);
    check_due_at(&timer, deadline_ns);
    tear_down();
    close_pair(pair);
}

static void
test_reactor_without_memory_leaves_nothing(void)
{
#ifdef CAN_FAIL_ALLOCATIONS
    static const int fds[] = {3, 40, 5000};
    int64_t live_count = live_allocations();
    for (size_t n = 1;; n++) {
        fail_allocation_at(n);
        int status = reactor_open(&reactor, &fake_engine);
        bool is_open = status == 0;
        size_t claimed_count = 0;
        while (status == 0 && claimed_count < COUNT_OF(fds)) {
            status = reactor_claim(&reactor, fds[claimed_count], &owners[0]);
            claimed_count += status == 0;
        }
        bool was_hit = allow_allocations();
        CHECK_INT(status, was_hit ? -ENOMEM : 0);
        if (is_open) {
            // The claims before the failure are as they were.
            CHECK(watch_table_is_consistent(&reactor.watches));
            CHECK_UINT(reactor.watches.owned_count, claimed_count);
            reactor_close(&reactor);
        }
        CHECK_INT(live_allocations(), live_count);
        if (!was_hit) {
            CHECK(n > 4);
            break;
        }
    }
#endif
}

int
main(void)
{
    harness_limit_time(120);
    RUN(test_reactor_claim_has_one_owner);
    RUN(test_reactor_register_makes_only_the_calls_it_needs);
    RUN(test_reactor_register_passes_errors_on);
    RUN(test_reactor_number_closed_behind_its_back_is_survived);
    RUN(test_reactor_asks_the_engine_whether_it_still_watches);
    RUN(test_reactor_event_of_reused_number_is_dropped);
    RUN(test_reactor_event_nobody_asks_for_any_more_is_dropped);
#ifdef CORONET_HARD_MODE
    RUN(test_reactor_hard_mode_tells_each_event_twice);
#endif
    RUN(test_reactor_events_not_taken_are_carried_over);
    RUN(test_reactor_repeated_events_join_the_one_not_taken);
    RUN(test_reactor_withdrawn_events_leave_the_others_in_order);
    RUN(test_reactor_after_fork_keeps_claims_and_timers_only);
    RUN(test_reactor_without_memory_leaves_nothing);
    return harness_finish("reactor");
}
