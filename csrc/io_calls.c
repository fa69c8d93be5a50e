// io_calls.c: the system calls that move bytes and make descriptors, as a table.
//
// Most entries are the C library's functions as they are; those below are shaped alike on
// all systems, or have no fixed type.

// For accept4 with glibc, and for files with large inode numbers.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#ifndef _FILE_OFFSET_BITS
#define _FILE_OFFSET_BITS 64
#endif

#include "io_calls.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/sendfile.h>
#endif

// The BSDs tell what was sent before the socket was full, or a signal came, beside the error.
static ssize_t
send_file(int fd, int file_fd, int64_t offset, size_t length)
{
#if defined(__linux__)
    off_t position = (off_t)offset;
    return sendfile(fd, file_fd, &position, length);
#elif defined(__APPLE__)
    off_t sent = (off_t)length;
    int result = sendfile(file_fd, fd, (off_t)offset, &sent, NULL, 0);
    return result == 0 || sent > 0 ? (ssize_t)sent : -1;
#elif defined(__FreeBSD__) || defined(__DragonFly__)
    off_t sent = 0;
    int result = sendfile(file_fd, fd, (off_t)offset, length, NULL, &sent, 0);
    return result == 0 || sent > 0 ? (ssize_t)sent : -1;
#else
    (void)fd;
    (void)file_fd;
    (void)offset;
    (void)length;
    errno = ENOSYS;
    return -1;
#endif
}

static ssize_t
read_at(int fd, void *data, size_t length, int64_t offset)
{
    return pread(fd, data, length, (off_t)offset);
}

static int
accept_connection(int fd, struct sockaddr *address, socklen_t *length)
{
#if defined(CORONET_HAVE_ACCEPT4)
    return accept4(fd, address, length, SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
    return accept(fd, address, length);
#endif
}

// glibc declares it with a union for the address.
static int
connect_socket(int fd, const struct sockaddr *address, socklen_t length)
{
    return connect(fd, address, length);
}

static int
duplicate(int fd)
{
    return fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

const struct io_calls io_system_calls = {
    .receive = recv,
    .receive_message = recvmsg,
    .read = read,
    .send = send,
    .send_message = sendmsg,
    .write = write,
    .write_vector = writev,
    .send_file = send_file,
    .read_at = read_at,
    .accept = accept_connection,
    .connect = connect_socket,
    .open_socket = socket,
    .duplicate = duplicate,
    .close = close,
};

_Atomic(const struct io_calls *) io_calls_in_use = &io_system_calls;
