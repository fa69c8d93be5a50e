// test_engine_waits.c: how a wait ends (event, time, wake-up, signal), fork, opening, and
// the fake engine's clock. What is reported is in test_engine.c.

// For the clock, fork and signals under -std=c11 with glibc.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include "engine_cases.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>

// Waits with nothing ready and checks that the whole of [timeout_ns] went by on the
// engine's clock: nothing that was left over ended the wait.
static void
check_times_out(int64_t timeout_ns)
{
    struct engine_event event;
    uint64_t before_ns = operations->now_ns(engine);
    CHECK_INT(operations->wait(engine, &event, 1, timeout_ns), 0);
    CHECK(operations->now_ns(engine) >= before_ns + (uint64_t)timeout_ns);
}

static void
test_engine_wait_never_ends_before_its_timeout(void)
{
    static const int64_t timeouts_ns[] = {0,       1,       999999,  1000000,
                                          1000001, 1500000, 2999999, 5000000};
    for (size_t i = 0; i < COUNT_OF(timeouts_ns); i++) {
        check_times_out(timeouts_ns[i]);
    }
}

static void
test_engine_wait_with_any_timeout_ends_by_an_event(void)
{
    static const int64_t timeouts_ns[] = {-1, 0, 1, INT64_C(3600) * 1000000000,
                                          INT64_MAX};
    int pair[2];
    struct engine_event event;
    make_pair(pair);
    CHECK_INT(operations->add(engine, pair[0], TOKEN, EVENT_WRITE, ENGINE_LEVEL), 0);
    for (size_t i = 0; i < COUNT_OF(timeouts_ns); i++) {
        CHECK_INT(operations->wait(engine, &event, 1, timeouts_ns[i]), 1);
    }
    close_pair(pair);
}

static void
test_engine_wake_before_wait_ends_it_once(void)
{
    struct engine_event event;
    for (int i = 0; i < 3; i++) {
        CHECK_INT(operations->wake(engine), 0);
        CHECK_INT(operations->wake(engine), 0);
        CHECK_INT(operations->wait(engine, &event, 1, -1), 0);
        check_times_out(2000000);
    }
}

static void
test_engine_wake_is_taken_by_a_look(void)
{
    struct engine_event event;
    CHECK_INT(operations->wake(engine), 0);
    CHECK_INT(operations->wait(engine, &event, 1, 0), 0);
    check_times_out(2000000);
}

static void
test_engine_wake_and_event_both_come_with_capacity_one(void)
{
    struct engine_event event;
    int pair[2];
    make_pair(pair);
    CHECK_INT(operations->add(engine, pair[0], TOKEN, EVENT_WRITE, ENGINE_EDGE), 0);
    CHECK_INT(operations->wake(engine), 0);
    int event_count = 0;
    // The wake-up may end a wait without an event; a wake-up is never an event.
    for (int i = 0; i < 2; i++) {
        int count = operations->wait(engine, &event, 1, 0);
        event_count += count;
        if (count == 1) {
            CHECK_UINT(event.token, TOKEN);
            CHECK_UINT(event.ready, EVENT_WRITE);
        }
    }
    CHECK_INT(event_count, 1);
    check_times_out(2000000);
    close_pair(pair);
}

static void
test_engine_wake_keeps_errno(void)
{
    errno = EDOM;
    CHECK_INT(operations->wake(engine), 0);
    CHECK_INT(errno, EDOM);
}

enum { WAKE_ROUNDS = 2000 };

static atomic_int rounds_answered;

static void *
wake_repeatedly(void *unused)
{
    (void)unused;
    for (int i = 0; i < WAKE_ROUNDS; i++) {
        operations->wake(engine);
        // The next wake-up is not sent before this one has ended a wait.
        while (atomic_load(&rounds_answered) <= i) {
            sched_yield();
        }
    }
    return NULL;
}

static void
test_engine_wake_from_thread_ends_every_wait(void)
{
    pthread_t thread;
    struct engine_event event;
    atomic_store(&rounds_answered, 0);
    REQUIRE(pthread_create(&thread, NULL, wake_repeatedly, NULL) == 0);
    for (int i = 0; i < WAKE_ROUNDS; i++) {
        // A lost wake-up ends this program by its alarm.
        CHECK_INT(operations->wait(engine, &event, 1, -1), 0);
        atomic_fetch_add(&rounds_answered, 1);
    }
    pthread_join(thread, NULL);
    // None is left over.
    check_times_out(2000000);
}

static void
handle_signal(int number)
{
    (void)number;
}

static void
wake_in_handler(int number)
{
    (void)number;
    operations->wake(engine);
}

static atomic_bool is_interrupted;

static void *
interrupt_repeatedly(void *waiter)
{
    // Until one of the signals has found the other thread in its wait.
    while (!atomic_load(&is_interrupted)) {
        pthread_kill(*(pthread_t *)waiter, SIGUSR1);
        sched_yield();
    }
    return NULL;
}

static void
set_handler(void (*handler)(int))
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0);
}

static void
test_engine_signal_interrupts_wait(void)
{
    pthread_t thread;
    pthread_t self = pthread_self();
    struct engine_event event;
    set_handler(handle_signal);
    atomic_store(&is_interrupted, false);
    REQUIRE(pthread_create(&thread, NULL, interrupt_repeatedly, &self) == 0);
    CHECK_INT(operations->wait(engine, &event, 1, -1), -EINTR);
    atomic_store(&is_interrupted, true);
    pthread_join(thread, NULL);
}

static void
test_engine_wake_in_signal_handler_ends_next_wait(void)
{
    struct engine_event event;
    set_handler(wake_in_handler);
    raise(SIGUSR1);
    CHECK_INT(operations->wait(engine, &event, 1, -1), 0);
}

static void
test_engine_clock_does_not_go_back(void)
{
    uint64_t before_ns = operations->now_ns(engine);
    CHECK(before_ns > 0);
    for (int i = 0; i < 1000; i++) {
        uint64_t now_ns = operations->now_ns(engine);
        CHECK(now_ns >= before_ns);
        before_ns = now_ns;
    }
}

// What a forked child does to the engine it inherited; whether all of it went well.
static bool
child_uses_own_engine(const int pair[2])
{
    struct engine_event event;
    bool is_well = operations->after_fork(engine) == 0;
    // The fd is ready, and was registered by level: this engine knows nothing of it.
    is_well = is_well && operations->wait(engine, &event, 1, 0) == 0;
    is_well =
        is_well && operations->add(engine, pair[0], TOKEN, EVENT_READ, ENGINE_EDGE) == 0;
    is_well = is_well && operations->remove(engine, pair[0]) == 0;
    is_well = is_well && operations->remove(engine, pair[0]) == -ENOENT;
    is_well = is_well && operations->add(engine, pair[0], OTHER_TOKEN, EVENT_WRITE,
                                         ENGINE_EDGE) == 0;
    is_well = is_well && operations->wait(engine, &event, 1, -1) == 1;
    is_well = is_well && event.token == OTHER_TOKEN && event.ready == EVENT_WRITE;
    is_well = is_well && operations->remove(engine, pair[0]) == 0;
    is_well = is_well && operations->wake(engine) == 0;
    is_well = is_well && operations->wait(engine, &event, 1, -1) == 0;
    operations->close(engine);
    return is_well;
}

static void
test_engine_child_does_not_disturb_parent(void)
{
    int pair[2];
    make_pair(pair);
    put(pair[1], "x");
    CHECK_INT(operations->add(engine, pair[0], TOKEN, EVENT_READ, ENGINE_LEVEL), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        _exit(child_uses_own_engine(pair) ? 0 : 1);
    }
    CHECK(has_succeeded(child));
    CHECK_UINT(await(TOKEN), EVENT_READ);
    CHECK_INT(operations->remove(engine, pair[0]), 0);
    // Nor was the child's wake-up ours.
    check_times_out(2000000);
    close_pair(pair);
}

static void
test_engine_child_does_not_take_parents_wake_up(void)
{
    struct engine_event event;
    CHECK_INT(operations->wake(engine), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        bool is_well = operations->after_fork(engine) == 0;
        uint64_t before_ns = operations->now_ns(engine);
        is_well = is_well && operations->wait(engine, &event, 1, 3000000) == 0;
        is_well = is_well && operations->now_ns(engine) >= before_ns + 3000000;
        operations->close(engine);
        _exit(is_well ? 0 : 1);
    }
    CHECK(has_succeeded(child));
    CHECK_INT(operations->wait(engine, &event, 1, -1), 0);
}

// Makes [count] the first descriptor number that this process cannot have.
static void
limit_descriptors(int count)
{
    struct rlimit limit = {0};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = (rlim_t)count;
    setrlimit(RLIMIT_NOFILE, &limit);
}

// Run in a child, which alone is limited.
static bool
open_survives_descriptor_limits(void)
{
    int free_fd = lowest_free_fd();
#ifdef CAN_FAIL_ALLOCATIONS
    int64_t live_count = live_allocations();
#endif
    for (int more = 0; more < 10; more++) {
        struct engine *second = NULL;
        limit_descriptors(free_fd + more);
        int status = operations->open(&second);
        limit_descriptors(free_fd + 10);
        if (status == 0) {
            operations->close(second);
            // An engine without a descriptor would be none.
            return more >= 1 && lowest_free_fd() == free_fd;
        }
        if (status != -EMFILE || lowest_free_fd() != free_fd) {
            return false;
        }
#ifdef CAN_FAIL_ALLOCATIONS
        if (live_allocations() != live_count) {
            return false;
        }
#endif
    }
    return false;
}

static void
test_engine_open_without_descriptors_leaves_nothing(void)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        _exit(open_survives_descriptor_limits() ? 0 : 1);
    }
    CHECK(has_succeeded(child));
}

static void
test_engine_after_fork_without_descriptors_stays_closable(void)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        limit_descriptors(0);
        bool is_well = operations->after_fork(engine) == -EMFILE;
        is_well = is_well && operations->add(engine, STDIN_FILENO, TOKEN, EVENT_READ,
                                             ENGINE_EDGE) == -EBADF;
        is_well = is_well && operations->wake(engine) == -EBADF;
        operations->close(engine);
        _exit(is_well ? 0 : 1);
    }
    CHECK(has_succeeded(child));
}

static void
test_engine_open_without_memory_leaves_nothing(void)
{
#ifdef CAN_FAIL_ALLOCATIONS
    int free_fd = lowest_free_fd();
    int64_t live_count = live_allocations();
    for (size_t n = 1;; n++) {
        struct engine *second = NULL;
        fail_allocation_at(n);
        int status = operations->open(&second);
        if (!allow_allocations()) {
            CHECK_INT(status, 0);
            CHECK(n > 1);
            operations->close(second);
            break;
        }
        CHECK_INT(status, -ENOMEM);
        CHECK_INT(live_allocations(), live_count);
        CHECK_INT(lowest_free_fd(), free_fd);
    }
    CHECK_INT(live_allocations(), live_count);
#endif
}

static const struct engine_case cases[] = {
    CASE(test_engine_wait_never_ends_before_its_timeout),
    CASE(test_engine_wait_with_any_timeout_ends_by_an_event),
    CASE(test_engine_wake_before_wait_ends_it_once),
    CASE(test_engine_wake_is_taken_by_a_look),
    CASE(test_engine_wake_and_event_both_come_with_capacity_one),
    CASE(test_engine_wake_keeps_errno),
    CASE(test_engine_wake_from_thread_ends_every_wait),
    CASE(test_engine_signal_interrupts_wait),
    CASE(test_engine_wake_in_signal_handler_ends_next_wait),
    CASE(test_engine_clock_does_not_go_back),
    CASE(test_engine_child_does_not_disturb_parent),
    CASE(test_engine_child_does_not_take_parents_wake_up),
    CASE(test_engine_open_without_descriptors_leaves_nothing),
    CASE(test_engine_after_fork_without_descriptors_stays_closable),
    CASE(test_engine_open_without_memory_leaves_nothing),
};

static void
test_engine_find_knows_names_and_prefers_the_real(void)
{
    const struct engine_operations *best = engine_find(NULL);
    REQUIRE(best != NULL);
    CHECK(best != &fake_engine);
    CHECK_POINTER(engine_find(""), best);
    CHECK_POINTER(engine_find(best->name), best);
    CHECK_POINTER(engine_find("fake"), &fake_engine);
    CHECK_POINTER(engine_find("epol"), NULL);
    CHECK_POINTER(engine_find("Epoll"), NULL);
    CHECK_POINTER(engine_at(0), best);
    size_t count = 0;
    while (engine_at(count) != NULL) {
        CHECK_POINTER(engine_find(engine_at(count)->name), engine_at(count));
        count++;
    }
    CHECK_POINTER(engine_at(count - 1), &fake_engine);
    CHECK_POINTER(engine_at(SIZE_MAX), NULL);
#if defined(CORONET_HAVE_KQUEUE)
    CHECK_STRING(best->name, "kqueue"); // what such a build is made for
#elif defined(__linux__)
    CHECK_STRING(best->name, "epoll");
#endif
}

static void
test_real_engine_clock_is_the_systems(void)
{
    const struct engine_operations *best = engine_find(NULL);
    struct engine *real;
    REQUIRE(best->open(&real) == 0);
    uint64_t before_ns = engine_monotonic_ns();
    uint64_t now_ns = best->now_ns(real);
    CHECK(before_ns > 0 && before_ns <= now_ns && now_ns <= engine_monotonic_ns());
    best->close(real);
}

static void
test_fake_engine_time_moves_by_waits_and_advance_only(void)
{
    struct engine_event event;
    int pair[2];
    uint64_t day_ns = UINT64_C(86400) * 1000000000;
    operations = &fake_engine;
    REQUIRE(fake_engine.open(&engine) == 0);
    uint64_t start_ns = fake_engine.now_ns(engine);
    CHECK(start_ns > 0);
    CHECK_INT(fake_engine.wait(engine, &event, 1, (int64_t)day_ns), 0);
    CHECK_UINT(fake_engine.now_ns(engine), start_ns + day_ns);
    fake_engine_advance(engine, 7);
    CHECK_UINT(fake_engine.now_ns(engine), start_ns + day_ns + 7);
    // A look, a wake-up and an event leave it where it is.
    CHECK_INT(fake_engine.wait(engine, &event, 1, 0), 0);
    fake_engine.wake(engine);
    CHECK_INT(fake_engine.wait(engine, &event, 1, (int64_t)day_ns), 0);
    fake_engine.wake(engine);
    CHECK_INT(fake_engine.wait(engine, &event, 1, -1), 0);
    make_pair(pair);
    CHECK_INT(fake_engine.add(engine, pair[0], TOKEN, EVENT_WRITE, ENGINE_EDGE), 0);
    CHECK_INT(fake_engine.wait(engine, &event, 1, (int64_t)day_ns), 1);
    CHECK_UINT(fake_engine.now_ns(engine), start_ns + day_ns + 7);
    close_pair(pair);
    // It stops at its end instead of starting over.
    CHECK_INT(fake_engine.wait(engine, &event, 1, INT64_MAX), 0);
    fake_engine_advance(engine, UINT64_MAX);
    CHECK_UINT(fake_engine.now_ns(engine), UINT64_MAX);
    fake_engine.close(engine);
}

static void
test_fake_engine_starts_alike_each_time(void)
{
    struct engine *first;
    struct engine *second;
    REQUIRE(fake_engine.open(&first) == 0);
    fake_engine_advance(first, 5);
    REQUIRE(fake_engine.open(&second) == 0);
    CHECK_UINT(fake_engine.now_ns(second), fake_engine.now_ns(first) - 5);
    // Tests name deadlines in milliseconds.
    CHECK_UINT(fake_engine.now_ns(second) % 1000000, 0);
    fake_engine.close(first);
    fake_engine.close(second);
}

int
main(void)
{
    harness_limit_time(120);
    engine_cases_run(cases, COUNT_OF(cases));
    RUN(test_engine_find_knows_names_and_prefers_the_real);
    RUN(test_real_engine_clock_is_the_systems);
    RUN(test_fake_engine_time_moves_by_waits_and_advance_only);
    RUN(test_fake_engine_starts_alike_each_time);
    return harness_finish("engine waits");
}
