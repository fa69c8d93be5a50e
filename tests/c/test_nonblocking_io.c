// test_nonblocking_io.c: each function on each kind of descriptor.
//
// SIGPIPE has its default action here, so a missed one ends the program.
// Interrupted calls are in test_interrupted_io.c.

// For ptys, socketpair and the like under -std=c11 with glibc.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/eventfd.h>
#endif

#include "engine.h"
#include "harness.h"
#include "loopback.h"
#include "nonblocking_io.h"

static void
make_pair(int type, int pair[2])
{
    REQUIRE(socketpair(AF_UNIX, type, 0, pair) == 0);
    CHECK_INT(io_set_nonblocking(pair[0], true), 0);
    CHECK_INT(io_set_nonblocking(pair[1], true), 0);
}

static void
make_pipe(int ends[2])
{
    REQUIRE(pipe(ends) == 0);
    CHECK_INT(io_set_nonblocking(ends[0], true), 0);
    CHECK_INT(io_set_nonblocking(ends[1], true), 0);
}

static void
close_both(const int pair[2])
{
    CHECK_INT(io_close(pair[0]), 0);
    CHECK_INT(io_close(pair[1]), 0);
}

// A number that is not open.
static int
closed_fd(void)
{
    int fd = dup(STDERR_FILENO);
    REQUIRE(fd >= 0);
    close(fd);
    return fd;
}

static bool
is_nonblocking(int fd)
{
    return (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0;
}

static bool
is_close_on_exec(int fd)
{
    return (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0;
}

// Describes [fd], which must be open, and closes it.
static struct io_description
describe_and_close(int fd)
{
    struct io_description description;
    memset(&description, 0xff, sizeof(description));
    REQUIRE(fd >= 0);
    CHECK_INT(io_describe(fd, &description), 0);
    close(fd);
    return description;
}

static void
test_io_describe_internet_sockets(void)
{
    struct sockaddr_in address;
    struct io_description listener = describe_and_close(make_listener(&address));
    CHECK(listener.is_socket && listener.is_pollable);
#if !defined(__APPLE__) // which does not tell
    CHECK(listener.is_listening);
#endif
    CHECK(listener.is_stream && listener.is_internet_stream && listener.was_nonblocking);
    struct io_description plain = describe_and_close(socket(AF_INET, SOCK_STREAM, 0));
    CHECK(plain.is_socket && plain.is_stream && plain.is_internet_stream);
    CHECK(!plain.is_listening && !plain.was_nonblocking);
    struct io_description datagram = describe_and_close(socket(AF_INET, SOCK_DGRAM, 0));
    CHECK(datagram.is_socket && datagram.is_pollable && !datagram.is_listening);
    CHECK(!datagram.is_stream && !datagram.is_internet_stream);
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    if (fd >= 0) {
        CHECK(describe_and_close(fd).is_internet_stream);
    }
}

static void
test_io_describe_unix_sockets(void)
{
    int pair[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    struct io_description stream = describe_and_close(pair[0]);
    close(pair[1]);
    CHECK(stream.is_socket && stream.is_stream && stream.is_pollable);
    CHECK(!stream.is_internet_stream && !stream.is_listening && !stream.was_nonblocking);
    make_pair(SOCK_DGRAM, pair);
    struct io_description datagram = describe_and_close(pair[0]);
    close(pair[1]);
    CHECK(datagram.is_socket && !datagram.is_stream && datagram.was_nonblocking);
}

static void
test_io_describe_other_pollable_files(void)
{
    int ends[2];
    make_pipe(ends);
    close(ends[1]);
    struct io_description description = describe_and_close(ends[0]);
    CHECK(description.is_pollable && !description.is_socket && description.is_stream);
    CHECK(!description.is_internet_stream && description.was_nonblocking);
    int terminal = posix_openpt(O_RDWR | O_NOCTTY);
    if (terminal >= 0) {
        description = describe_and_close(terminal);
        CHECK(description.is_pollable && !description.is_socket);
        CHECK(!description.was_nonblocking);
    }
#if defined(__linux__)
    description = describe_and_close(eventfd(0, 0));
    CHECK(description.is_pollable && !description.is_socket);
#endif
}

static void
test_io_describe_files_are_not_pollable(void)
{
    char name[] = "/tmp/coronet-test-XXXXXX";
    int file = mkstemp(name);
    REQUIRE(file >= 0);
    unlink(name);
    CHECK(!describe_and_close(file).is_pollable);
    struct io_description directory = describe_and_close(open("/", O_RDONLY));
    CHECK(!directory.is_pollable && !directory.is_socket);
}

static void
test_io_describe_tells_files_apart(void)
{
    int pair[2];
    make_pair(SOCK_STREAM, pair);
    struct io_description copy = describe_and_close(dup(pair[0]));
    struct io_description first = describe_and_close(pair[0]);
    struct io_description second = describe_and_close(pair[1]);
    CHECK_UINT(copy.inode, first.inode);
    CHECK_UINT(copy.device, first.device);
    CHECK(first.inode != second.inode);
}

static void
test_io_read_and_write_pass_bytes(void)
{
    int ends[2];
    char data[8] = "";
    make_pipe(ends);
    CHECK_INT(io_read(ends[0], data, sizeof(data)), -EAGAIN);
    CHECK_INT(io_write(ends[1], "abc", 3), 3);
    CHECK_INT(io_read(ends[0], data, 2), 2);
    CHECK_INT(io_read(ends[0], data + 2, sizeof(data) - 2), 1);
    CHECK_STRING(data, "abc");
    struct iovec blocks[] = {{"de", 2}, {"", 0}, {"fgh", 3}};
    CHECK_INT(io_write_vector(ends[1], blocks, 3), 5);
    CHECK_INT(io_read(ends[0], data, sizeof(data)), 5);
    CHECK_BYTES(data, "defgh", 5);
    CHECK_INT(io_close(ends[1]), 0);
    CHECK_INT(io_read(ends[0], data, sizeof(data)), 0);
    CHECK_INT(io_close(ends[0]), 0);
}

static void
test_io_send_and_receive_pass_bytes(void)
{
    int pair[2];
    char data[8];
    make_pair(SOCK_STREAM, pair);
    CHECK_INT(io_receive(pair[0], data, sizeof(data)), -EAGAIN);
    CHECK_INT(io_send(pair[1], "abc", 3), 3);
    CHECK_INT(io_receive(pair[0], data, sizeof(data)), 3);
    CHECK_BYTES(data, "abc", 3);
    struct iovec blocks[] = {{"de", 2}, {"fgh", 3}};
    CHECK_INT(io_send_vector(pair[1], blocks, 2), 5);
    CHECK_INT(io_receive(pair[0], data, sizeof(data)), 5);
    CHECK_BYTES(data, "defgh", 5);
    CHECK_INT(io_close(pair[1]), 0);
    CHECK_INT(io_receive(pair[0], data, sizeof(data)), 0);
    CHECK_INT(io_close(pair[0]), 0);
}

static void
test_io_datagrams_keep_their_borders(void)
{
    int pair[2];
    char data[8];
    make_pair(SOCK_DGRAM, pair);
    CHECK_INT(io_send(pair[1], "ab", 2), 2);
    CHECK_INT(io_send(pair[1], "", 0), 0);
    CHECK_INT(io_send(pair[1], "c", 1), 1);
    CHECK_INT(io_receive(pair[0], data, sizeof(data)), 2);
    CHECK_INT(io_receive(pair[0], data, sizeof(data)), 0);
    CHECK_INT(io_receive(pair[0], data, sizeof(data)), 1);
    close_both(pair);
}

static void
test_io_full_descriptor_gives_eagain(void)
{
    static const char data[65536];
    struct iovec blocks[] = {{(void *)data, sizeof(data)}, {(void *)data, sizeof(data)}};
    struct msghdr message = {.msg_iov = blocks, .msg_iovlen = 2};
    int pair[2];
    int ends[2];
    ssize_t count;
    make_pair(SOCK_STREAM, pair);
    while ((count = io_send(pair[0], data, sizeof(data))) > 0) {
    }
    CHECK_INT(count, -EAGAIN);
    CHECK_INT(io_send_vector(pair[0], blocks, 2), -EAGAIN);
    CHECK_INT(io_send_message(pair[0], &message, 0), -EAGAIN);
    make_pipe(ends);
    while ((count = io_write(ends[1], data, sizeof(data))) > 0) {
    }
    CHECK_INT(count, -EAGAIN);
    CHECK_INT(io_write_vector(ends[1], blocks, 2), -EAGAIN);
    close_both(pair);
    close_both(ends);
}

static void
test_io_send_to_closed_peer_gives_epipe_and_no_signal(void)
{
    struct iovec block = {"x", 1};
    struct msghdr message = {.msg_iov = &block, .msg_iovlen = 1};
    int pair[2];
    make_pair(SOCK_STREAM, pair);
    CHECK_INT(io_close(pair[1]), 0);
    CHECK_INT(io_send(pair[0], "x", 1), -EPIPE);
    CHECK_INT(io_send_vector(pair[0], &block, 1), -EPIPE);
    CHECK_INT(io_send_message(pair[0], &message, 0), -EPIPE);
    CHECK_INT(io_close(pair[0]), 0);
}

static void
test_io_received_descriptor_is_close_on_exec(void)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    char byte = 'x';
    struct iovec block = {&byte, 1};
    struct msghdr message = {.msg_iov = &block, .msg_iovlen = 1};
    int pair[2];
    make_pair(SOCK_STREAM, pair);
    message.msg_control = &control;
    message.msg_controllen = sizeof(control.room);
    CHECK_INT(io_receive_message(pair[1], &message, 0), -EAGAIN);

    int sent = dup(pair[0]);
    int received = -1;
    memset(&control, 0, sizeof(control));
    message.msg_control = &control;
    message.msg_controllen = sizeof(control.room);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &sent, sizeof(sent));
    CHECK(!is_close_on_exec(sent));
    CHECK_INT(io_send_message(pair[0], &message, 0), 1);

    memset(&control, 0, sizeof(control));
    CHECK_INT(io_receive_message(pair[1], &message, MSG_PEEK), 1);
    header = CMSG_FIRSTHDR(&message);
    REQUIRE(header != NULL && header->cmsg_type == SCM_RIGHTS);
    memcpy(&received, CMSG_DATA(header), sizeof(received));
    CHECK(received >= 0 && received != sent);
    CHECK(is_close_on_exec(received));
    CHECK_INT(io_close(received), 0);
    CHECK_INT(io_close(sent), 0);
    close_both(pair);
}

static void
test_io_vectors_beyond_what_a_call_may_move_go_out_in_part(void)
{
    // Memory that is only read, and so only addresses.
    size_t huge = (size_t)INT_MAX + 1;
    char *zeros = mmap(NULL, huge, PROT_READ, MAP_PRIVATE | MAP_ANON, -1, 0);
    REQUIRE(zeros != MAP_FAILED);
    struct iovec small_first[2] = {{zeros, 10}, {zeros, huge}};
    struct iovec huge_first[2] = {{zeros, huge}, {zeros, 10}};
    int pair[2], ends[2];
    make_pair(SOCK_STREAM, pair);
    make_pipe(ends);
    CHECK_INT(io_send_vector(pair[0], small_first, 2), 10);
    CHECK(io_send_vector(pair[0], huge_first, 2) > 0);
    CHECK_INT(io_write_vector(ends[1], small_first, 2), 10);
    CHECK(io_write_vector(ends[1], huge_first, 2) > 0);
    close_both(pair);
    close_both(ends);
    REQUIRE(munmap(zeros, huge) == 0);
}

static void
test_io_ancillary_length_believes_no_header(void)
{
    union {
        char room[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr aligned;
    } control;
    struct msghdr message = {.msg_control = &control};
    struct cmsghdr *header = &control.aligned;
    memset(&control, 0, sizeof(control));
    message.msg_controllen = CMSG_LEN(2 * sizeof(int));
    header->cmsg_len = CMSG_LEN(sizeof(int));
    CHECK_INT((int)io_ancillary_length(&message, header), (int)sizeof(int));
    header->cmsg_len = CMSG_LEN(100);
    CHECK_INT((int)io_ancillary_length(&message, header), 2 * (int)sizeof(int));
    message.msg_controllen = CMSG_LEN(0);
    CHECK_INT((int)io_ancillary_length(&message, header), 0);
    message.msg_controllen = CMSG_LEN(sizeof(int));
    header->cmsg_len = 0;
    CHECK_INT((int)io_ancillary_length(&message, header), 0);
}

static void
test_io_socket_family_is_known_without_a_name(void)
{
    static const int families[] = {AF_INET, AF_INET6, AF_UNIX};
    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
        int fd = io_socket(families[i], SOCK_DGRAM, 0);
        REQUIRE(fd >= 0);
        CHECK_INT(io_socket_family(fd), families[i]);
        CHECK_INT(io_close(fd), 0);
    }
    int ends[2];
    make_pipe(ends);
    CHECK_INT(io_socket_family(ends[0]), -ENOTSOCK);
    close_both(ends);
}

static void
test_io_new_sockets_are_nonblocking_and_close_on_exec(void)
{
    struct sockaddr_in address, peer, own;
    int listener = make_listener(&address);
    CHECK(is_nonblocking(listener) && is_close_on_exec(listener));
    socklen_t length = sizeof(peer);
    CHECK_INT(io_accept(listener, (struct sockaddr *)&peer, &length), -EAGAIN);

    int client = io_socket(AF_INET, SOCK_STREAM, 0);
    CHECK_INT(io_set_nonblocking(client, false), 0);
    CHECK_INT(io_connect(client, (struct sockaddr *)&address, sizeof(address)), 0);
    // The connection is complete; a blocking accept takes it whenever it arrives.
    CHECK_INT(io_set_nonblocking(listener, false), 0);
    length = sizeof(peer);
    int accepted = io_accept(listener, (struct sockaddr *)&peer, &length);
    REQUIRE(accepted >= 0);
    CHECK(is_nonblocking(accepted) && is_close_on_exec(accepted));
    CHECK_UINT(length, sizeof(peer));
    length = sizeof(own);
    REQUIRE(getsockname(client, (struct sockaddr *)&own, &length) == 0);
    CHECK_UINT(peer.sin_port, own.sin_port);
    CHECK_INT(io_close(accepted), 0);
    CHECK_INT(io_close(client), 0);
    CHECK_INT(io_close(listener), 0);
}

static void
test_io_accept_does_not_claim_more_address_than_there_was_room(void)
{
    struct sockaddr_in address;
    unsigned char room[8];
    memset(room, 0xee, sizeof(room));
    int listener = make_listener(&address);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(connect(client, (struct sockaddr *)&address, sizeof(address)) == 0);
    CHECK_INT(io_set_nonblocking(listener, false), 0);
    socklen_t length = 4;
    int accepted = io_accept(listener, (struct sockaddr *)(void *)room, &length);
    CHECK(accepted >= 0);
    CHECK_UINT(length, 4);
    CHECK_UINT(room[4], 0xee);
    CHECK_INT(io_close(accepted), 0);
    CHECK_INT(io_close(client), 0);
    CHECK_INT(io_close(listener), 0);
}

static void
test_io_refused_connect_is_told_by_the_socket_error(void)
{
    struct sockaddr_in address;
    CHECK_INT(io_close(make_listener(&address)), 0);
    int fd = io_socket(AF_INET, SOCK_STREAM, 0);
    int status = io_connect(fd, (struct sockaddr *)&address, sizeof(address));
    if (status == -EINPROGRESS) {
        // Loopback: the refusal is there by the time the connect has returned, or soon.
        while ((status = io_take_socket_error(fd)) == 0) {
            sched_yield();
        }
    }
    CHECK_INT(status, -ECONNREFUSED);
    CHECK_INT(io_take_socket_error(fd), 0);
    CHECK_INT(io_close(fd), 0);
}

static void
test_io_connect_to_full_unix_listener_gives_eagain(void)
{
#if defined(__linux__)
    // An abstract name that the kernel chooses: nothing to clean up.
    struct sockaddr_un address;
    socklen_t length = sizeof(sa_family_t);
    memset(&address, 0, sizeof(address));
    address.sun_family = AF_UNIX;
    int listener = io_socket(AF_UNIX, SOCK_STREAM, 0);
    REQUIRE(bind(listener, (struct sockaddr *)&address, length) == 0);
    REQUIRE(listen(listener, 0) == 0);
    length = sizeof(address);
    REQUIRE(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
    int clients[8];
    int count = 0;
    int status = 0;
    while (count < 8 && status == 0) {
        clients[count] = io_socket(AF_UNIX, SOCK_STREAM, 0);
        status = io_connect(clients[count++], (struct sockaddr *)&address, length);
    }
    CHECK_INT(status, -EAGAIN);
    while (count > 0) {
        CHECK_INT(io_close(clients[--count]), 0);
    }
    CHECK_INT(io_close(listener), 0);
#endif
}

static void
test_io_socket_options_are_set(void)
{
    int fd = io_socket(AF_INET, SOCK_STREAM, 0);
    int on = 0;
    socklen_t length = sizeof(on);
    CHECK_INT(io_set_no_delay(fd), 0);
    CHECK_INT(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &length), 0);
    CHECK(on != 0);
    struct linger linger = {0, 99};
    length = sizeof(linger);
    CHECK_INT(io_set_hard_close(fd), 0);
    CHECK_INT(getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &length), 0);
    CHECK(linger.l_onoff != 0);
    CHECK_INT(linger.l_linger, 0);
    CHECK_INT(io_close(fd), 0);
}

static void
test_io_descriptor_flags_are_set_and_nothing_else(void)
{
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    REQUIRE(fcntl(ends[1], F_SETFL, O_APPEND) == 0);
    int flags = fcntl(ends[1], F_GETFL);
    CHECK((flags & O_APPEND) != 0);
    CHECK(!is_nonblocking(ends[1]) && !is_close_on_exec(ends[1]));
    CHECK_INT(io_set_nonblocking(ends[1], true), 0);
    CHECK_INT(io_set_nonblocking(ends[1], true), 0);
    CHECK_INT(fcntl(ends[1], F_GETFL), flags | O_NONBLOCK);
    CHECK_INT(io_set_nonblocking(ends[1], false), 0);
    CHECK_INT(fcntl(ends[1], F_GETFL), flags);
    CHECK_INT(io_set_close_on_exec(ends[1]), 0);
    CHECK(is_close_on_exec(ends[1]));
    close_both(ends);
}

static void
test_io_closed_descriptor_gives_ebadf(void)
{
    struct io_description description;
    struct sockaddr_in address;
    char data[1] = "";
    struct iovec block = {data, 1};
    struct msghdr message = {.msg_iov = &block, .msg_iovlen = 1};
    memset(&address, 0, sizeof(address));
    socklen_t length = sizeof(address);
    int fd = closed_fd();
    CHECK_INT(io_describe(fd, &description), -EBADF);
    CHECK_INT(io_describe(-1, &description), -EBADF);
    CHECK_INT(io_ready_now(fd, EVENT_READ), -EBADF);
    CHECK_INT(io_receive(fd, data, 1), -EBADF);
    CHECK_INT(io_read(fd, data, 1), -EBADF);
    CHECK_INT(io_send(fd, data, 1), -EBADF);
    CHECK_INT(io_write(fd, data, 1), -EBADF);
    CHECK_INT(io_send_vector(fd, &block, 1), -EBADF);
    CHECK_INT(io_write_vector(fd, &block, 1), -EBADF);
    CHECK_INT(io_receive_message(fd, &message, 0), -EBADF);
    CHECK_INT(io_send_message(fd, &message, 0), -EBADF);
    CHECK_INT(io_accept(fd, (struct sockaddr *)&address, &length), -EBADF);
    CHECK_INT(io_connect(fd, (struct sockaddr *)&address, length), -EBADF);
    CHECK_INT(io_take_socket_error(fd), -EBADF);
    CHECK_INT(io_set_nonblocking(fd, true), -EBADF);
    CHECK_INT(io_set_close_on_exec(fd), -EBADF);
    CHECK_INT(io_set_no_delay(fd), -EBADF);
    CHECK_INT(io_set_hard_close(fd), -EBADF);
    CHECK_INT(io_close(fd), -EBADF);
}

static void
test_io_socket_calls_refuse_other_files(void)
{
    int ends[2];
    char data[1] = "";
    make_pipe(ends);
    CHECK_INT(io_receive(ends[0], data, 1), -ENOTSOCK);
    CHECK_INT(io_send(ends[1], data, 1), -ENOTSOCK);
    CHECK_INT(io_take_socket_error(ends[0]), -ENOTSOCK);
    CHECK(io_socket(AF_INET, 12345, 0) < 0);
    close_both(ends);
}

int
main(void)
{
    harness_limit_time(120);
    RUN(test_io_describe_internet_sockets);
    RUN(test_io_describe_unix_sockets);
    RUN(test_io_describe_other_pollable_files);
    RUN(test_io_describe_files_are_not_pollable);
    RUN(test_io_describe_tells_files_apart);
    RUN(test_io_read_and_write_pass_bytes);
    RUN(test_io_send_and_receive_pass_bytes);
    RUN(test_io_datagrams_keep_their_borders);
    RUN(test_io_full_descriptor_gives_eagain);
    RUN(test_io_send_to_closed_peer_gives_epipe_and_no_signal);
    RUN(test_io_received_descriptor_is_close_on_exec);
    RUN(test_io_vectors_beyond_what_a_call_may_move_go_out_in_part);
    RUN(test_io_ancillary_length_believes_no_header);
    RUN(test_io_socket_family_is_known_without_a_name);
    RUN(test_io_new_sockets_are_nonblocking_and_close_on_exec);
    RUN(test_io_accept_does_not_claim_more_address_than_there_was_room);
    RUN(test_io_refused_connect_is_told_by_the_socket_error);
    RUN(test_io_connect_to_full_unix_listener_gives_eagain);
    RUN(test_io_socket_options_are_set);
    RUN(test_io_descriptor_flags_are_set_and_nothing_else);
    RUN(test_io_closed_descriptor_gives_ebadf);
    RUN(test_io_socket_calls_refuse_other_files);
    return harness_finish("nonblocking I/O");
}
