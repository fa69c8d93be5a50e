// nonblocking_file.c: files on their way to a socket: sendfile(2), and reading at a place.
//
// The part of nonblocking_io.h that concerns files, called by connections that send one. A
// file is never "not ready": both calls block while the disk is read, and whoever calls
// them lets other threads run meanwhile.
//
// sendfile has no flag that keeps SIGPIPE away. Where the socket has no option for it either,
// the signal is blocked during the call, and one that has come is taken away, unless one was
// there before.

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#ifndef _FILE_OFFSET_BITS
#define _FILE_OFFSET_BITS 64
#endif

#include "nonblocking_io.h"

#include "io_calls.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

// No system is asked for more at once; Linux takes no more, and others refuse it.
#define MAX_CALL_BYTES ((size_t)0x7fff0000)

ssize_t
io_read_at(int fd, void *data, size_t length, int64_t offset)
{
    ssize_t count;
    do {
        count = io_calls()->read_at(
            fd, data, length < MAX_CALL_BYTES ? length : MAX_CALL_BYTES, offset);
    } while (count < 0 && errno == EINTR);
    if (count >= 0) {
        return count;
    }
    // To whoever sends a file EAGAIN means that the socket is full, and nothing would ever
    // tell that a file is ready.
    return errno == EAGAIN || errno == EWOULDBLOCK ? -EIO : -errno;
}

int
io_file_size(int fd, int64_t *size)
{
    struct stat status;
    if (fstat(fd, &status) < 0) {
        return -errno;
    }
    if (S_ISDIR(status.st_mode)) {
        return -EISDIR;
    }
    if (lseek(fd, 0, SEEK_CUR) < 0) {
        return -errno; // ESPIPE; terminals too
    }
    *size = S_ISREG(status.st_mode) ? (int64_t)status.st_size : -1;
    return 0;
}

int
io_duplicate(int fd)
{
    int duplicate = io_calls()->duplicate(fd);
    return duplicate < 0 ? -errno : duplicate;
}

#if !defined(__linux__) && !defined(__FreeBSD__) && !defined(__DragonFly__)
static ssize_t
send_file_without_signal(int fd, int file_fd, int64_t offset, size_t length)
{
    return io_calls()->send_file(fd, file_fd, offset, length);
}
#else
static ssize_t
send_file_without_signal(int fd, int file_fd, int64_t offset, size_t length)
{
    sigset_t pipe_signal, before, pending;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    ssize_t count = io_calls()->send_file(fd, file_fd, offset, length);
    int error = errno;
    if (count < 0 && error == EPIPE && !sigismember(&before, SIGPIPE) &&
        sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE)) {
        const struct timespec at_once = {0, 0};
        (void)sigtimedwait(&pipe_signal, NULL, &at_once);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return count;
}
#endif

ssize_t
io_send_file(int fd, int file_fd, int64_t offset, size_t length)
{
    if (length == 0) {
        return 0; // to some systems it means "to the end"
    }
    ssize_t count;
    do {
        count = send_file_without_signal(
            fd, file_fd, offset, length < MAX_CALL_BYTES ? length : MAX_CALL_BYTES);
    } while (count < 0 && errno == EINTR);
    if (count >= 0) {
        return count;
    }
    switch (errno) {
    case EINVAL:   // a file, or a descriptor, that it does not do
    case ENOSYS:   // not on this system, or forbidden
    case ENOTSOCK: // only sockets here, and this is a pipe
    case ESPIPE:   // a file without positions
#if ENOTSUP != EOPNOTSUPP
    case ENOTSUP:
#endif
        return -EOPNOTSUPP; // a file system, or a kind of socket, that it does not do
    default:
        return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    }
}
