// test_nonblocking_file.c: files on their way to descriptors of every kind.
//
// SIGPIPE has its default action here unless a case says otherwise, so a missed one ends the
// program.

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "loopback.h"
#include "nonblocking_io.h"

#define FILE_SIZE 100000

static char content[FILE_SIZE];

// A file with no name that holds [content].
static int
make_file(void)
{
    char name[] = "/tmp/coronet-test-XXXXXX";
    int fd = mkstemp(name);
    REQUIRE(fd >= 0);
    unlink(name);
    for (size_t i = 0; i < FILE_SIZE; i++) {
        content[i] = (char)(i * 7 + i / 251);
    }
    REQUIRE(write(fd, content, FILE_SIZE) == FILE_SIZE);
    return fd;
}

static void
make_pair(int pair[2])
{
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    CHECK_INT(io_set_nonblocking(pair[0], true), 0);
    CHECK_INT(io_set_nonblocking(pair[1], true), 0);
}

static void
test_io_read_at_reads_anywhere_and_moves_nothing(void)
{
    char buffer[64];
    int file = make_file();
    REQUIRE(lseek(file, 5, SEEK_SET) == 5);
    CHECK_INT(io_read_at(file, buffer, 64, 1000), 64);
    CHECK_BYTES(buffer, content + 1000, 64);
    CHECK_INT(io_read_at(file, buffer, 64, FILE_SIZE - 3), 3);
    CHECK_BYTES(buffer, content + FILE_SIZE - 3, 3);
    CHECK_INT(io_read_at(file, buffer, 64, FILE_SIZE), 0);
    CHECK_INT(io_read_at(file, buffer, 64, INT64_C(1) << 40), 0);
    CHECK_INT(lseek(file, 0, SEEK_CUR), 5);
    CHECK_INT(io_read_at(file, buffer, 64, -1), -EINVAL);
    CHECK_INT(io_close(file), 0);
    CHECK_INT(io_read_at(file, buffer, 64, 0), -EBADF);
}

static void
test_io_send_file_sends_what_is_asked_for(void)
{
    static char received[FILE_SIZE];
    int file = make_file();
    int pair[2];
    make_pair(pair);
    int64_t offset = 10;
    while (offset < FILE_SIZE) {
        ssize_t sent = io_send_file(pair[0], file, offset, 30000);
        REQUIRE(sent > 0);
        CHECK(sent <= 30000);
        for (ssize_t taken = 0; taken < sent;) {
            ssize_t count = io_receive(pair[1], received + taken, (size_t)(sent - taken));
            REQUIRE(count > 0);
            taken += count;
        }
        CHECK_BYTES(received, content + offset, (size_t)sent);
        offset += sent;
    }
    CHECK_INT(offset, FILE_SIZE);
    CHECK_INT(io_send_file(pair[0], file, FILE_SIZE, 10), 0);
    CHECK_INT(io_send_file(pair[0], file, INT64_C(1) << 40, 10), 0);
    CHECK_INT(io_send_file(pair[0], file, 0, 0), 0);
    CHECK_INT(io_receive(pair[1], received, 1), -EAGAIN);
    CHECK_INT(lseek(file, 0, SEEK_CUR), FILE_SIZE);
    io_close(file);
    io_close(pair[0]);
    io_close(pair[1]);
}

static void
test_io_send_file_to_a_full_socket_gives_eagain(void)
{
    int file = make_file();
    int pair[2];
    make_pair(pair);
    ssize_t sent = 0;
    ssize_t total = 0;
    for (int i = 0; i < 10000 && sent >= 0; i++) {
        sent = io_send_file(pair[0], file, 0, FILE_SIZE);
        total += sent > 0 ? sent : 0;
    }
    CHECK_INT(sent, -EAGAIN);
    CHECK(total > 0);
    io_close(file);
    io_close(pair[0]);
    io_close(pair[1]);
}

static void
check_closed_peer(int expected_pending)
{
    int file = make_file();
    int pair[2];
    sigset_t pending;
    make_pair(pair);
    io_close(pair[1]);
    CHECK_INT(io_send_file(pair[0], file, 0, 10), -EPIPE);
    REQUIRE(sigpending(&pending) == 0);
    CHECK_INT(sigismember(&pending, SIGPIPE), expected_pending);
    io_close(file);
    io_close(pair[0]);
}

static void
test_io_send_file_to_a_closed_peer_gives_epipe_and_no_signal(void)
{
    sigset_t before, after;
    sigprocmask(SIG_SETMASK, NULL, &before);
    check_closed_peer(0);
    sigprocmask(SIG_SETMASK, NULL, &after);
    CHECK_INT(sigismember(&after, SIGPIPE), sigismember(&before, SIGPIPE));
}

static void
test_io_send_file_leaves_a_signal_that_was_there_before(void)
{
    sigset_t pipe_signal, before;
    int number;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    sigprocmask(SIG_BLOCK, &pipe_signal, &before);
    raise(SIGPIPE);
    check_closed_peer(1);
    REQUIRE(sigwait(&pipe_signal, &number) == 0);
    sigprocmask(SIG_SETMASK, &before, NULL);
}

static void
test_io_send_file_says_what_has_to_be_read(void)
{
    int pair[2], ends[2];
    make_pair(pair);
    REQUIRE(pipe(ends) == 0);
    REQUIRE(write(ends[1], "x", 1) == 1);
#if defined(__linux__)
    // sendfile(2) does not take what has no positions.
    CHECK_INT(io_send_file(pair[0], pair[1], 0, 1), -EOPNOTSUPP);
    CHECK_INT(io_send_file(pair[0], ends[0], 0, 1), -EOPNOTSUPP);
    // Nor does it append.
    int file = make_file();
    int target = make_file();
    REQUIRE(fcntl(target, F_SETFL, O_APPEND) == 0);
    CHECK_INT(io_send_file(target, file, 0, 1), -EOPNOTSUPP);
    io_close(file);
    io_close(target);
#endif
    io_close(ends[0]);
    io_close(ends[1]);
    io_close(pair[0]);
    io_close(pair[1]);
}

static void
test_io_send_file_with_closed_descriptors_gives_ebadf(void)
{
    int file = make_file();
    int pair[2];
    make_pair(pair);
    io_close(pair[1]);
    CHECK_INT(io_send_file(pair[1], file, 0, 1), -EBADF);
    io_close(file);
    CHECK_INT(io_send_file(pair[0], file, 0, 1), -EBADF);
    io_close(pair[0]);
}

static void
test_io_file_size_tells_files_from_others(void)
{
    int64_t size = 0;
    int file = make_file();
    CHECK_INT(io_file_size(file, &size), 0);
    CHECK_INT(size, FILE_SIZE);
    REQUIRE(ftruncate(file, 0) == 0);
    CHECK_INT(io_file_size(file, &size), 0);
    CHECK_INT(size, 0);
    io_close(file);
    CHECK_INT(io_file_size(file, &size), -EBADF);
    int ends[2], pair[2];
    make_pair(pair);
    REQUIRE(pipe(ends) == 0);
    CHECK_INT(io_file_size(ends[0], &size), -ESPIPE);
    CHECK_INT(io_file_size(pair[0], &size), -ESPIPE);
    int folder = open("/", O_RDONLY);
    CHECK_INT(io_file_size(folder, &size), -EISDIR);
    int device = open("/dev/zero", O_RDONLY);
    CHECK_INT(io_file_size(device, &size), 0);
    CHECK_INT(size, -1);
    const int all[] = {ends[0], ends[1], pair[0], pair[1], folder, device};
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        io_close(all[i]);
    }
}

static void
test_io_duplicate_is_another_descriptor_that_exec_closes(void)
{
    int file = make_file();
    int duplicate = io_duplicate(file);
    REQUIRE(duplicate >= 0);
    CHECK(duplicate != file);
    CHECK(fcntl(duplicate, F_GETFD) & FD_CLOEXEC);
    io_close(file);
    char byte;
    CHECK_INT(io_read_at(duplicate, &byte, 1, 3), 1);
    CHECK_INT(byte, content[3]);
    CHECK_INT(io_duplicate(file), -EBADF);
    io_close(duplicate);
}

int
main(void)
{
    RUN(test_io_read_at_reads_anywhere_and_moves_nothing);
    RUN(test_io_send_file_sends_what_is_asked_for);
    RUN(test_io_send_file_to_a_full_socket_gives_eagain);
    RUN(test_io_send_file_to_a_closed_peer_gives_epipe_and_no_signal);
    RUN(test_io_send_file_leaves_a_signal_that_was_there_before);
    RUN(test_io_send_file_says_what_has_to_be_read);
    RUN(test_io_send_file_with_closed_descriptors_gives_ebadf);
    RUN(test_io_file_size_tells_files_from_others);
    RUN(test_io_duplicate_is_another_descriptor_that_exec_closes);
    return harness_finish("files");
}
