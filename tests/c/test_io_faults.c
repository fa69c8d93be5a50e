// test_io_faults.c: calls that fail on purpose, and the readiness that is told again.

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "io_faults.h"
#include "loopback.h"
#include "nonblocking_io.h"
#include "reactor.h"

static struct io_faults faults;

static void
set_up(void)
{
    io_faults_init(&faults, 1);
}

static void
tear_down(void)
{
    CHECK_INT(io_faults_stop(&faults), 0);
    CHECK(!io_faults_are_on());
    io_faults_fini(&faults);
}

static void
add(enum io_operation operation, int error, size_t limit, uint32_t share)
{
    struct io_fault_rule *rule = &faults.rules[operation];
    rule->faults[rule->fault_count++] =
        (struct io_fault){.error = error, .limit = limit, .share = share};
}

static void
plan(enum io_operation operation, const char *steps)
{
    faults.rules[operation].plan = (const unsigned char *)steps;
    faults.rules[operation].plan_length = strlen(steps);
}

static uint64_t
count_of(enum io_operation operation, size_t place)
{
    return faults.rules[operation].faults[place].count;
}

static void
make_stream_pair(int pair[2])
{
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    REQUIRE(io_set_nonblocking(pair[0], true) == 0);
    REQUIRE(io_set_nonblocking(pair[1], true) == 0);
}

static void
test_io_faults_plan_is_followed_step_by_step(void)
{
    int pair[2];
    char data[10];
    make_stream_pair(pair);
    set_up();
    add(IO_READ, EINTR, 0, 0);
    add(IO_READ, EAGAIN, 0, 0);
    add(IO_READ, 0, 2, 0);
    plan(IO_READ, "\1\3\1\1\2\3");
    CHECK_INT(io_faults_start(&faults), 0);
    CHECK_INT(io_send(pair[1], "abcdef", 6), 6);
    CHECK_INT(io_receive(pair[0], data, sizeof(data)), 2); // repeated after EINTR
    CHECK_INT(io_read(pair[0], data, sizeof(data)), -EAGAIN);
    CHECK_INT(io_receive(pair[0], data, 2), 2); // not cut: no more was asked for
    CHECK_INT(io_receive(pair[0], data, sizeof(data)), 2);
    CHECK_BYTES(data, "ef", 2);
    CHECK_UINT(count_of(IO_READ, 0), 3);
    CHECK_UINT(count_of(IO_READ, 1), 1);
    CHECK_UINT(count_of(IO_READ, 2), 1);
    tear_down();
    close(pair[0]);
    close(pair[1]);
}

static void
test_io_faults_short_calls_lose_nothing(void)
{
    int pair[2];
    char sent[4000], received[4000];
    make_stream_pair(pair);
    set_up();
    add(IO_READ, 0, 0, UINT32_MAX / 2);
    add(IO_WRITE, 0, 0, UINT32_MAX);
    CHECK_INT(io_faults_start(&faults), 0);
    for (size_t i = 0; i < sizeof(sent); i++) {
        sent[i] = (char)random_below(256);
    }
    size_t written = 0, taken = 0;
    while (taken < sizeof(sent)) {
        size_t middle = written + (sizeof(sent) - written) / 2;
        struct iovec blocks[] = {
            {sent + written, middle - written},
            {sent + middle, sizeof(sent) - middle},
        };
        ssize_t count = written % 2 ? io_send_vector(pair[0], blocks, 2)
                                    : io_write_vector(pair[0], blocks, 2);
        written += count > 0 ? (size_t)count : 0;
        struct iovec room[] = {{received + taken, 1}, {received + taken + 1, 700}};
        struct msghdr message = {.msg_iov = room,
                                 .msg_iovlen = taken + 701 < 4000 ? 2 : 1};
        count = io_receive_message(pair[1], &message, 0);
        REQUIRE(count > 0 || count == -EAGAIN);
        taken += count > 0 ? (size_t)count : 0;
    }
    CHECK_BYTES(received, sent, sizeof(sent));
    CHECK(count_of(IO_READ, 0) > 0);
    CHECK(count_of(IO_WRITE, 0) > 0);
    tear_down();
    close(pair[0]);
    close(pair[1]);
}

static void
test_io_faults_packets_with_borders_are_not_cut(void)
{
    int pair[2];
    char data[10];
    REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
    set_up();
    add(IO_READ, 0, 1, UINT32_MAX);
    add(IO_WRITE, 0, 1, UINT32_MAX);
    CHECK_INT(io_faults_start(&faults), 0);
    CHECK_INT(io_send(pair[0], "whole", 5), 5);
    CHECK_INT(io_receive(pair[1], data, sizeof(data)), 5);
    CHECK_UINT(count_of(IO_READ, 0) + count_of(IO_WRITE, 0), 0);
    tear_down();
    close(pair[0]);
    close(pair[1]);
}

static void
test_io_faults_reset_ends_both_sides(void)
{
    int pair[2];
    char data[10];
    make_stream_pair(pair);
    set_up();
    add(IO_READ, ECONNRESET, 0, 0);
    plan(IO_READ, "\1");
    CHECK_INT(io_faults_start(&faults), 0);
    CHECK_INT(io_send(pair[1], "unread", 6), 6);
    CHECK_INT(io_receive(pair[0], data, sizeof(data)), -ECONNRESET);
    CHECK_INT(io_receive(pair[0], data, sizeof(data)), 0);
    CHECK_INT(io_send(pair[0], "x", 1), -EPIPE);
    CHECK_INT(io_receive(pair[1], data, sizeof(data)), 0);
    // The number is as good as new for what has it next.
    CHECK_INT(io_close(pair[0]), 0);
    int other[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, other) == 0);
    REQUIRE(other[0] == pair[0]);
    CHECK_INT(io_send(other[0], "x", 1), 1);
    tear_down();
    close(pair[1]);
    close(other[0]);
    close(other[1]);
}

static void
test_io_faults_concern_the_selected_and_this_thread(void)
{
    int pair[2];
    make_stream_pair(pair);
    set_up();
    add(IO_WRITE, ENOBUFS, 0, UINT32_MAX);
    CHECK_INT(io_faults_select(&faults, pair[1]), 0);
    CHECK_INT(io_faults_select(&faults, -1), -EBADF);
    CHECK_INT(io_faults_start(&faults), 0);
    CHECK_INT(io_faults_start(&faults), -EBUSY);
    CHECK_INT(io_send(pair[0], "x", 1), 1);
    CHECK_INT(io_send(pair[1], "x", 1), -ENOBUFS);
    tear_down();
    CHECK_INT(io_faults_stop(&faults), -EINVAL);
    close(pair[0]);
    close(pair[1]);
}

static void *
send_elsewhere(void *argument)
{
    *(ssize_t *)argument = io_send(*(int *)argument, "x", 1);
    return NULL;
}

static void
test_io_faults_leave_other_threads_alone(void)
{
    int pair[2];
    make_stream_pair(pair);
    set_up();
    add(IO_WRITE, ENOBUFS, 0, UINT32_MAX);
    CHECK_INT(io_faults_start(&faults), 0);
    union {
        int fd;
        ssize_t result;
    } argument = {.result = 0};
    argument.fd = pair[0];
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, send_elsewhere, &argument) == 0);
    pthread_join(thread, NULL);
    CHECK_INT(argument.result, 1);
    CHECK_INT(io_send(pair[0], "x", 1), -ENOBUFS);
    tear_down();
    close(pair[0]);
    close(pair[1]);
}

static void
test_io_faults_making_and_connecting(void)
{
    struct sockaddr_in address;
    int listener = make_listener(&address);
    set_up();
    add(IO_OPEN, EMFILE, 0, 0);
    add(IO_CONNECT, EINTR, 0, 0);
    add(IO_ACCEPT, ENFILE, 0, 0);
    add(IO_ACCEPT, EAGAIN, 0, 0);
    plan(IO_OPEN, "\1\1");
    plan(IO_CONNECT, "\1");
    plan(IO_ACCEPT, "\1\2");
    CHECK_INT(io_faults_start(&faults), 0);
    CHECK_INT(io_socket(AF_INET, SOCK_STREAM, 0), -EMFILE);
    CHECK_INT(io_duplicate(listener), -EMFILE);
    int fd = io_socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(fd >= 0);
    // It goes on, and comes to its end.
    CHECK_INT(io_connect(fd, (struct sockaddr *)&address, sizeof(address)), -EINPROGRESS);
    struct sockaddr_storage peer;
    socklen_t length = sizeof(peer);
    CHECK_INT(io_accept(listener, (struct sockaddr *)&peer, &length), -ENFILE);
    length = sizeof(peer);
    CHECK_INT(io_accept(listener, (struct sockaddr *)&peer, &length), -EAGAIN);
    length = sizeof(peer);
    int accepted;
    do {
        accepted = io_accept(listener, (struct sockaddr *)&peer, &length);
    } while (accepted == -EAGAIN);
    CHECK(accepted >= 0);
    CHECK_INT(io_take_socket_error(fd), 0);
    tear_down();
    close(accepted);
    close(fd);
    close(listener);
}

// On each engine: after an EAGAIN of ours an edge comes, though nothing new has arrived.
static void
check_edge_after_again(const struct engine_operations *operations)
{
    struct reactor reactor;
    int pair[2], owner;
    unsigned ready;
    char data[10];
    REQUIRE(reactor_open(&reactor, operations) == 0);
    make_stream_pair(pair);
    CHECK_INT(reactor_claim(&reactor, pair[0], &owner), 0);
    CHECK_INT(reactor_register(&reactor, pair[0], EVENT_READ, ENGINE_EDGE), 0);
    set_up();
    add(IO_READ, EAGAIN, 0, 0);
    add(IO_READ, 0, 1, 0);
    plan(IO_READ, "\1\2");
    CHECK_INT(io_faults_start(&faults), 0);
    CHECK_INT(io_send(pair[1], "ab", 2), 2);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(reactor_wait_limit(&reactor, i == 0 ? -1 : 0), i == 0 ? -1 : 0);
        CHECK_INT(reactor_poll(&reactor, 0), 1);
        CHECK_POINTER(reactor_take_event(&reactor, &ready), &owner);
        CHECK_POINTER(reactor_take_event(&reactor, &ready), NULL);
        CHECK_INT(io_receive(pair[0], data, sizeof(data)), i == 0 ? -EAGAIN : 1);
        reactor.echo.count = 0; // hard mode would tell it once more
    }
    // All has been taken, and nothing is told any more.
    CHECK_INT(reactor_wait_limit(&reactor, 0), 0);
    CHECK_INT(reactor_poll(&reactor, 0), 0);
    tear_down();
    reactor_release(&reactor, pair[0]);
    reactor_close(&reactor);
    close(pair[0]);
    close(pair[1]);
}

static void
test_io_faults_edge_comes_again_on_every_engine(void)
{
    for (size_t i = 0; engine_at(i) != NULL; i++) {
        check_edge_after_again(engine_at(i));
    }
}

int
main(void)
{
    RUN(test_io_faults_plan_is_followed_step_by_step);
    RUN(test_io_faults_short_calls_lose_nothing);
    RUN(test_io_faults_packets_with_borders_are_not_cut);
    RUN(test_io_faults_reset_ends_both_sides);
    RUN(test_io_faults_concern_the_selected_and_this_thread);
    RUN(test_io_faults_leave_other_threads_alone);
    RUN(test_io_faults_making_and_connecting);
    RUN(test_io_faults_edge_comes_again_on_every_engine);
    return harness_finish("io_faults");
}
