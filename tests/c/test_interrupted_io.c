// test_interrupted_io.c: the functions of nonblocking_io.h when signals come.
//
// Each blocks, on a descriptor that was left blocking for that, while another thread
// sends it signals one by one and at last does what the call waits for. The handler is
// set without SA_RESTART, so each signal ends the system call.

// For signals and socketpair under -std=c11 with glibc.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "nonblocking_io.h"

enum { SIGNALS = 50 };

struct interrupter {
    pthread_t thread;
    pthread_t target;                              // who is blocked
    void (*help)(struct interrupter *interrupter); // ends the call
    int fd;                                        // what help works on
    struct sockaddr_in address;
};

static atomic_int handled_count;

static void
count_signal(int number)
{
    (void)number;
    atomic_fetch_add(&handled_count, 1);
}

static void *
interrupt_then_help(void *argument)
{
    struct interrupter *interrupter = argument;
    for (int i = 1; i <= SIGNALS; i++) {
        pthread_kill(interrupter->target, SIGUSR1);
        while (atomic_load(&handled_count) < i) {
            sched_yield();
        }
    }
    interrupter->help(interrupter);
    return NULL;
}

// Starts the thread; the caller makes its blocking call next.
static void
start(struct interrupter *interrupter)
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = count_signal;
    sigemptyset(&action.sa_mask);
    REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0);
    atomic_store(&handled_count, 0);
    interrupter->target = pthread_self();
    REQUIRE(pthread_create(&interrupter->thread, NULL, interrupt_then_help,
                           interrupter) == 0);
}

static void
finish(struct interrupter *interrupter)
{
    pthread_join(interrupter->thread, NULL);
    CHECK_INT(atomic_load(&handled_count), SIGNALS);
}

static void
send_byte(struct interrupter *interrupter)
{
    io_write(interrupter->fd, "x", 1);
}

// Takes enough that there is room for a byte again.
static void
take_bytes(struct interrupter *interrupter)
{
    static char data[1 << 20];
    io_read(interrupter->fd, data, sizeof(data));
}

static void
connect_and_close(struct interrupter *interrupter)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    connect(fd, (struct sockaddr *)&interrupter->address, sizeof(interrupter->address));
    close(fd);
}

enum { WAYS_TO_READ = 3, WAYS_TO_WRITE = 5 };

static ssize_t
read_byte(int way, int fd)
{
    char byte;
    struct iovec block = {&byte, 1};
    struct msghdr message = {.msg_iov = &block, .msg_iovlen = 1};
    switch (way) {
    case 0:
        return io_read(fd, &byte, 1);
    case 1:
        return io_receive(fd, &byte, 1);
    default:
        return io_receive_message(fd, &message, 0);
    }
}

static ssize_t
write_byte(int way, int fd)
{
    char byte = 'x';
    struct iovec block = {&byte, 1};
    struct msghdr message = {.msg_iov = &block, .msg_iovlen = 1};
    switch (way) {
    case 0:
        return io_write(fd, &byte, 1);
    case 1:
        return io_send(fd, &byte, 1);
    case 2:
        return io_write_vector(fd, &block, 1);
    case 3:
        return io_send_vector(fd, &block, 1);
    default:
        return io_send_message(fd, &message, 0);
    }
}

static void
test_io_interrupted_reads_are_repeated(void)
{
    int pair[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    for (int way = 0; way < WAYS_TO_READ; way++) {
        struct interrupter interrupter = {.help = send_byte, .fd = pair[1]};
        start(&interrupter);
        CHECK_INT(read_byte(way, pair[0]), 1);
        finish(&interrupter);
    }
    close(pair[0]);
    close(pair[1]);
}

static void
test_io_interrupted_writes_are_repeated(void)
{
    static const char data[4096];
    int pair[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    for (int way = 0; way < WAYS_TO_WRITE; way++) {
        struct interrupter interrupter = {.help = take_bytes, .fd = pair[1]};
        REQUIRE(io_set_nonblocking(pair[0], true) == 0);
        while (io_write(pair[0], data, sizeof(data)) > 0) {
        }
        while (io_write(pair[0], data, 1) > 0) {
        }
        REQUIRE(io_set_nonblocking(pair[0], false) == 0);
        start(&interrupter);
        CHECK_INT(write_byte(way, pair[0]), 1);
        finish(&interrupter);
    }
    close(pair[0]);
    close(pair[1]);
}

static void
test_io_interrupted_accept_is_repeated(void)
{
    struct interrupter interrupter = {.help = connect_and_close};
    struct sockaddr_in *address = &interrupter.address;
    struct sockaddr_in peer;
    socklen_t length = sizeof(*address);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(bind(listener, (struct sockaddr *)address, sizeof(*address)) == 0);
    REQUIRE(listen(listener, 1) == 0);
    REQUIRE(getsockname(listener, (struct sockaddr *)address, &length) == 0);
    start(&interrupter);
    length = sizeof(peer);
    int accepted = io_accept(listener, (struct sockaddr *)&peer, &length);
    CHECK(accepted >= 0);
    CHECK_UINT(length, sizeof(peer));
    finish(&interrupter);
    CHECK_INT(io_close(accepted), 0);
    CHECK_INT(io_close(listener), 0);
}

int
main(void)
{
    harness_limit_time(120);
    RUN(test_io_interrupted_reads_are_repeated);
    RUN(test_io_interrupted_writes_are_repeated);
    RUN(test_io_interrupted_accept_is_repeated);
    return harness_finish("interrupted I/O");
}
