// test_threads.c: what threads may do to one another in layers 1 and 2, for ThreadSanitizer.
//
// A loop here is driven as layer 3 drives the reactor: a lock, which stands for the GIL,
// guards everything but reactor_poll(), and who posts something while the loop polls wakes
// it. A lost wake-up ends the program by its alarm; a race is what `make tsan` finds.

// For the clock under -std=c11 with glibc.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include "cpu_clock.h"
#include "engine_cases.h"
#include "io_faults.h"
#include "reactor.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { THREADS = 4, POSTS = 1000, ROUNDS = 300, LOOPS = 3 };

struct post {
    struct list_node link;
};

struct loop {
    struct reactor reactor;
    struct list_node posts; // guarded by the lock, as the next one is
    bool is_polling;
    int event_count, due_count; // by reactor_poll, of the loop's own thread
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct loop loops[LOOPS];

static void
loop_open(struct loop *loop)
{
    REQUIRE(reactor_open(&loop->reactor, operations) == 0);
    list_init(&loop->posts);
    loop->is_polling = false;
    loop->event_count = loop->due_count = 0;
}

// With the lock held.
static void
loop_wake(struct loop *loop)
{
    if (loop->is_polling) {
        operations->wake(loop->reactor.engine);
    }
}

static void
loop_post(struct loop *loop, struct post *post)
{
    pthread_mutex_lock(&lock);
    list_append(&loop->posts, &post->link);
    loop_wake(loop);
    pthread_mutex_unlock(&lock);
}

// What an owner of a descriptor does with its event.
static void
take_byte(int *fd)
{
    char byte;
    while (io_read(*fd, &byte, 1) == 1) {
    }
}

// With the lock held, but for the poll.
static void
loop_turn(struct loop *loop)
{
    int64_t limit_ns =
        reactor_wait_limit(&loop->reactor, list_is_empty(&loop->posts) ? -1 : 0);
    loop->is_polling = true;
    pthread_mutex_unlock(&lock);
    (void)reactor_poll(&loop->reactor, limit_ns);
    pthread_mutex_lock(&lock);
    loop->is_polling = false;
    reactor_settle(&loop->reactor);
    unsigned ready;
    int *fd;
    while ((fd = reactor_take_event(&loop->reactor, &ready)) != NULL) {
        take_byte(fd);
        loop->event_count++;
    }
    while (reactor_take_due(&loop->reactor) != NULL) {
        loop->due_count++;
    }
}

// --- Posts ------------------------------------------------------------------------------

static void *
post_many(void *unused)
{
    (void)unused;
    struct post *posts = calloc(POSTS, sizeof(*posts));
    for (int i = 0; i < POSTS && posts != NULL; i++) {
        loop_post(&loops[0], &posts[i]);
    }
    return posts; // freed when all have been taken
}

static void
test_threads_every_post_ends_the_wait(void)
{
    pthread_t threads[THREADS];
    struct loop *loop = &loops[0];
    loop_open(loop);
    for (int i = 0; i < THREADS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, post_many, NULL) == 0);
    }
    pthread_mutex_lock(&lock);
    for (int taken = 0; taken < THREADS * POSTS;) {
        loop_turn(loop);
        while (list_take_first(&loop->posts) != NULL) {
            taken++;
        }
    }
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < THREADS; i++) {
        void *posts = NULL;
        pthread_join(threads[i], &posts);
        CHECK(posts != NULL);
        free(posts);
    }
    reactor_close(&loop->reactor);
}

// --- Changes while the loop polls -------------------------------------------------------

static atomic_int working_count;

// Claims, registers, arms, releases: all under the lock, while the loop may be polling.
static void *
change_registrations(void *unused)
{
    struct reactor *reactor = &loops[0].reactor;
    int pair[2] = {-1, -1};
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0) {
        abort();
    }
    io_set_nonblocking(pair[0], true);
    for (int i = 0; i < ROUNDS; i++) {
        struct timer timer;
        timer_init(&timer, NULL);
        pthread_mutex_lock(&lock);
        if (reactor_claim(reactor, pair[0], &pair[0]) < 0 ||
            reactor_register(reactor, pair[0], EVENT_READ, ENGINE_EDGE) < 0) {
            abort();
        }
        reactor_arm(reactor, &timer, 1);
        loop_wake(&loops[0]);
        pthread_mutex_unlock(&lock);
        if (write(pair[1], "x", 1) != 1) {
            abort();
        }
        pthread_mutex_lock(&lock);
        (void)reactor_register(reactor, pair[0], EVENT_READ | EVENT_WRITE, ENGINE_EDGE);
        timer_wheel_unlink(&reactor->timers, &timer);
        reactor_release(reactor, pair[0]);
        pthread_mutex_unlock(&lock);
    }
    close_pair(pair);
    atomic_fetch_sub(&working_count, 1);
    pthread_mutex_lock(&lock);
    loop_wake(&loops[0]);
    pthread_mutex_unlock(&lock);
    return unused;
}

static void
test_threads_change_what_a_polling_loop_watches(void)
{
    pthread_t threads[THREADS];
    struct loop *loop = &loops[0];
    loop_open(loop);
    atomic_store(&working_count, THREADS);
    for (int i = 0; i < THREADS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, change_registrations, NULL) == 0);
    }
    pthread_mutex_lock(&lock);
    while (atomic_load(&working_count) > 0) {
        loop_turn(loop);
    }
    CHECK(timer_wheel_is_consistent(&loop->reactor.timers));
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    reactor_close(&loop->reactor);
}

// --- Several loops ----------------------------------------------------------------------

static int passed_count[LOOPS];

// Each time the token comes: a byte to itself, an event, and on to the next loop.
static void *
pass_token(void *argument)
{
    struct loop *loop = argument;
    size_t index = (size_t)(loop - loops);
    int pair[2] = {-1, -1};
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0) {
        abort();
    }
    io_set_nonblocking(pair[0], true);
    pthread_mutex_lock(&lock);
    (void)reactor_claim(&loop->reactor, pair[0], &pair[0]);
    (void)reactor_register(&loop->reactor, pair[0], EVENT_READ, ENGINE_EDGE);
    while (passed_count[index] < ROUNDS) {
        loop_turn(loop);
        struct list_node *token = list_take_first(&loop->posts);
        if (token == NULL) {
            continue;
        }
        int seen = loop->event_count;
        (void)io_write(pair[1], "x", 1);
        while (loop->event_count == seen) {
            loop_turn(loop);
        }
        passed_count[index]++;
        struct loop *next = &loops[(index + 1) % LOOPS];
        list_append(&next->posts, token);
        loop_wake(next);
    }
    reactor_release(&loop->reactor, pair[0]);
    pthread_mutex_unlock(&lock);
    close_pair(pair);
    return NULL;
}

static void
test_threads_loops_of_their_own_post_to_one_another(void)
{
    pthread_t threads[LOOPS];
    struct post token;
    for (size_t i = 0; i < LOOPS; i++) {
        loop_open(&loops[i]);
        passed_count[i] = 0;
    }
    list_append(&loops[0].posts, &token.link);
    for (size_t i = 0; i < LOOPS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, pass_token, &loops[i]) == 0);
    }
    for (size_t i = 0; i < LOOPS; i++) {
        pthread_join(threads[i], NULL);
        CHECK_INT(passed_count[i], ROUNDS);
    }
    for (size_t i = 0; i < LOOPS; i++) {
        reactor_close(&loops[i].reactor);
    }
}

// --- Below the reactor ------------------------------------------------------------------

static void *
wake_without_lock(void *unused)
{
    for (int i = 0; i < POSTS; i++) {
        operations->wake(engine);
        (void)operations->now_ns(engine);
    }
    atomic_fetch_sub(&working_count, 1);
    operations->wake(engine);
    return unused;
}

static void
test_threads_wake_an_engine_all_at_once(void)
{
    pthread_t threads[THREADS];
    struct engine_event event;
    atomic_store(&working_count, THREADS);
    for (int i = 0; i < THREADS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, wake_without_lock, NULL) == 0);
    }
    while (atomic_load(&working_count) > 0) {
        CHECK_INT(operations->wait(engine, &event, 1, -1), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
}

static void *
move_bytes(void *unused)
{
    int pair[2] = {-1, -1};
    char byte = 'x';
    intptr_t failed_count = socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0;
    (void)unused;
    for (int i = 0; i < POSTS; i++) {
        failed_count += io_send(pair[0], &byte, 1) != 1;
        failed_count += io_receive(pair[1], &byte, 1) != 1;
    }
    close_pair(pair);
    return (void *)failed_count;
}

static void
test_threads_move_bytes_while_another_has_faults(void)
{
    pthread_t threads[THREADS];
    struct io_faults faults;
    io_faults_init(&faults, 1);
    for (int i = 0; i < THREADS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, move_bytes, NULL) == 0);
    }
    for (int i = 0; i < POSTS; i++) {
        CHECK_INT(io_faults_start(&faults), 0);
        CHECK(io_faults_are_on());
        CHECK_INT(io_faults_stop(&faults), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        void *failed_count = NULL;
        CHECK(cpu_clock_of_thread((unsigned long)pthread_self()) > 0);
        pthread_join(threads[i], &failed_count);
        CHECK(failed_count == NULL);
    }
    io_faults_fini(&faults);
}

static const struct engine_case cases[] = {
    CASE(test_threads_every_post_ends_the_wait),
    CASE(test_threads_change_what_a_polling_loop_watches),
    CASE(test_threads_loops_of_their_own_post_to_one_another),
    CASE(test_threads_wake_an_engine_all_at_once),
    CASE(test_threads_move_bytes_while_another_has_faults),
};

int
main(void)
{
    harness_limit_time(240);
    engine_cases_run(cases, COUNT_OF(cases));
    return harness_finish("threads");
}
