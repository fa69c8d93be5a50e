// nonblocking_io.c: the system calls on descriptors, made uniform.
//
// Called by whoever moves bytes: the connections of layer 3, and C programs. errno is
// read once, right after the call, and never leaves this file. No function keeps state.
//
// What differs between systems stands in the first section; below it there are no
// conditions but the ones of macOS, which can do less at once: there a descriptor is
// made first and then made non-blocking and close-on-exec, and a fork of another thread
// may come between.

// For SOCK_NONBLOCK with glibc, and for files with large inode numbers.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#ifndef _FILE_OFFSET_BITS
#define _FILE_OFFSET_BITS 64
#endif

#include "nonblocking_io.h"

#include "engine.h"
#include "io_calls.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_BLOCKS 64

// macOS has SO_NOSIGPIPE on the socket, the others a flag for each call. Newer macOS
// headers have the flag too, but older systems that the program may run on do not.
#if defined(__APPLE__) || !defined(MSG_NOSIGNAL)
#define SEND_FLAGS 0
#define CORONET_SIGPIPE_IS_OPTION 1
#else
#define SEND_FLAGS MSG_NOSIGNAL
#endif

// macOS refuses to move more than INT_MAX bytes in one call, where others move less than
// what they were asked for.
#define MAX_CALL_BYTES ((size_t)INT_MAX)

#if defined(MSG_CMSG_CLOEXEC)
#define RECEIVE_MESSAGE_FLAGS MSG_CMSG_CLOEXEC
#else
#define RECEIVE_MESSAGE_FLAGS 0
#endif

// A system call's result in our form: [result], or -errno if it failed.
static ssize_t
result_or_error(ssize_t result)
{
    if (result >= 0) {
        return result;
    }
    int error = errno;
    // POSIX lets the two differ, and either may come.
    return error == EWOULDBLOCK ? -EAGAIN : -error;
}

// The same for a send on a connected socket.
static ssize_t
sent_or_error(ssize_t result)
{
#if defined(__APPLE__)
    // A send that meets the end of the connection may say so there, and the next EPIPE.
    if (result < 0 && errno == EPROTOTYPE) {
        return -EPIPE;
    }
#endif
    return result_or_error(result);
}

static size_t
limit_length(size_t length)
{
    return length < MAX_CALL_BYTES ? length : MAX_CALL_BYTES;
}

// How many blocks, from the first on, one call can take as a whole.
static int
count_blocks_that_fit(const struct iovec *blocks, int count)
{
    size_t room = MAX_CALL_BYTES;
    int fitting = 0;
    while (fitting < count && blocks[fitting].iov_len <= room) {
        room -= blocks[fitting++].iov_len;
    }
    return fitting;
}

// Where only the socket itself can keep SIGPIPE away, asks it to. Harmless on others.
static void
silence_sigpipe(int fd)
{
#if defined(CORONET_SIGPIPE_IS_OPTION) && defined(SO_NOSIGPIPE)
    int on = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof(on));
#else
    (void)fd;
#endif
}

#if !defined(SOCK_NONBLOCK) || !defined(CORONET_HAVE_ACCEPT4)
// What SOCK_NONBLOCK | SOCK_CLOEXEC would have done. [fd], or -errno with it closed.
static int
finish_descriptor(int fd)
{
    int status = io_set_nonblocking(fd, true);
    if (status == 0) {
        status = io_set_close_on_exec(fd);
    }
    if (status < 0) {
        (void)io_close(fd);
        return status;
    }
    return fd;
}
#endif

int
io_socket_family(int fd)
{
#if defined(SO_DOMAIN)
    int domain = AF_UNSPEC;
    socklen_t length = sizeof(domain);
    // An older system than the headers are of does not know the option.
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0) {
        return domain;
    }
#endif
    // A socket without a name yet has a family all the same.
    struct sockaddr_storage address;
    socklen_t address_length = sizeof(address);
    memset(&address, 0, sizeof(address));
    if (getsockname(fd, (struct sockaddr *)&address, &address_length) < 0) {
        return -errno;
    }
    return address.ss_family;
}

static int
describe_socket(int fd, struct io_description *description)
{
    int type = 0;
    socklen_t length = sizeof(type);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) < 0) {
        return -errno;
    }
    int is_listening = 0;
    length = sizeof(is_listening);
    // macOS has the option and answers to none. There a listener is known by what
    // accept() says to it, and is a plain socket until then.
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &length) < 0) {
        is_listening = 0;
    }
    int family = io_socket_family(fd);
    description->is_socket = true;
    description->is_listening = is_listening != 0;
    // Packets have borders, so SOCK_SEQPACKET is no stream either.
    description->is_stream = type == SOCK_STREAM;
    description->is_internet_stream =
        type == SOCK_STREAM && (family == AF_INET || family == AF_INET6);
    return 0;
}

int
io_describe(int fd, struct io_description *description)
{
    struct stat status;
    memset(description, 0, sizeof(*description));
    if (fstat(fd, &status) < 0) {
        return -errno;
    }
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) {
        return -errno; // not reached: fstat() found the descriptor
    }
    description->device = (uint64_t)status.st_dev;
    description->inode = (uint64_t)status.st_ino;
    // macOS and the BSDs number no internet sockets: each says 0.
    description->has_identity = status.st_ino != 0;
    description->was_nonblocking = (flags & O_NONBLOCK) != 0;
    // Disks always count as ready, and a read of one blocks whatever its flags say. Some
    // character devices (/dev/null) cannot be waited for either: the engine tells.
    description->is_pollable =
        !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode) && !S_ISBLK(status.st_mode);
    description->is_stream = true;
    return S_ISSOCK(status.st_mode) ? describe_socket(fd, description) : 0;
}

ssize_t
io_receive(int fd, void *data, size_t length)
{
    ssize_t count;
    do {
        count = io_calls()->receive(fd, data, limit_length(length), 0);
    } while (count < 0 && errno == EINTR);
    return result_or_error(count);
}

ssize_t
io_read(int fd, void *data, size_t length)
{
    ssize_t count;
    do {
        count = io_calls()->read(fd, data, limit_length(length));
    } while (count < 0 && errno == EINTR);
    return result_or_error(count);
}

ssize_t
io_send(int fd, const void *data, size_t length)
{
    ssize_t count;
    do {
        count = io_calls()->send(fd, data, limit_length(length), SEND_FLAGS);
    } while (count < 0 && errno == EINTR);
    return sent_or_error(count);
}

ssize_t
io_write(int fd, const void *data, size_t length)
{
    ssize_t count;
    do {
        count = io_calls()->write(fd, data, limit_length(length));
    } while (count < 0 && errno == EINTR);
    return result_or_error(count);
}

ssize_t
io_send_vector(int fd, const struct iovec *blocks, int count)
{
    assert(count >= 0 && count <= MAX_BLOCKS);
    int fitting = count_blocks_that_fit(blocks, count);
    if (fitting == 0 && count > 0) {
        return io_send(fd, blocks[0].iov_base, blocks[0].iov_len);
    }
    struct msghdr message;
    memset(&message, 0, sizeof(message));
    message.msg_iov = (struct iovec *)blocks; // sendmsg only reads them
    // The field is an int on some systems and a size_t on others.
    message.msg_iovlen = (__typeof__(message.msg_iovlen))fitting;
    return io_send_message(fd, &message, 0);
}

ssize_t
io_write_vector(int fd, const struct iovec *blocks, int count)
{
    assert(count >= 0 && count <= MAX_BLOCKS);
    int fitting = count_blocks_that_fit(blocks, count);
    if (fitting == 0 && count > 0) {
        return io_write(fd, blocks[0].iov_base, blocks[0].iov_len);
    }
    ssize_t written;
    do {
        written = io_calls()->write_vector(fd, blocks, fitting);
    } while (written < 0 && errno == EINTR);
    return result_or_error(written);
}

size_t
io_ancillary_length(const struct msghdr *message, const struct cmsghdr *header)
{
    const char *data = (const char *)CMSG_DATA(header);
    const char *end = (const char *)message->msg_control + message->msg_controllen;
    if (data >= end || header->cmsg_len < CMSG_LEN(0)) {
        return 0;
    }
    size_t claimed = header->cmsg_len - CMSG_LEN(0);
    size_t there = (size_t)(end - data);
    return claimed < there ? claimed : there;
}

#if !defined(MSG_CMSG_CLOEXEC)
// Marks the descriptors that came with [message], where recvmsg cannot do it.
static void
mark_received_descriptors(struct msghdr *message)
{
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header != NULL;
         header = CMSG_NXTHDR(message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t length = io_ancillary_length(message, header);
        for (size_t at = 0; at + sizeof(int) <= length; at += sizeof(int)) {
            int fd;
            memcpy(&fd, CMSG_DATA(header) + at, sizeof(fd));
            (void)io_set_close_on_exec(fd);
        }
    }
}
#endif

ssize_t
io_receive_message(int fd, struct msghdr *message, int flags)
{
    ssize_t count;
    do {
        count = io_calls()->receive_message(fd, message, flags | RECEIVE_MESSAGE_FLAGS);
    } while (count < 0 && errno == EINTR);
    count = result_or_error(count);
#if !defined(MSG_CMSG_CLOEXEC)
    if (count >= 0) {
        mark_received_descriptors(message);
    }
#endif
    return count;
}

ssize_t
io_send_message(int fd, const struct msghdr *message, int flags)
{
    ssize_t count;
    do {
        count = io_calls()->send_message(fd, message, flags | SEND_FLAGS);
    } while (count < 0 && errno == EINTR);
    // With an address EPROTOTYPE means what it says: there is a socket of another type.
    return message->msg_name == NULL ? sent_or_error(count) : result_or_error(count);
}

int
io_socket(int domain, int type, int protocol)
{
#if defined(SOCK_NONBLOCK)
    int fd =
        io_calls()->open_socket(domain, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
    if (fd < 0) {
        return -errno;
    }
    silence_sigpipe(fd);
    return fd;
#else
    int fd = io_calls()->open_socket(domain, type, protocol);
    if (fd < 0) {
        return -errno;
    }
    return finish_descriptor(fd);
#endif
}

// Errors of the connection that was to be taken (ECONNABORTED, EPROTO and, on Linux,
// network errors such as ENETDOWN) come out as they are: whether to go on is policy.
int
io_accept(int fd, struct sockaddr *address, socklen_t *length)
{
    int accepted;
    socklen_t room = *length;
    do {
        *length = room;
        accepted = io_calls()->accept(fd, address, length);
    } while (accepted < 0 && errno == EINTR);
    if (accepted < 0) {
        return (int)result_or_error(accepted);
    }
    // The kernel tells how long the address is, even if it had to cut it off.
    if (*length > room) {
        *length = room;
    }
#if defined(CORONET_HAVE_ACCEPT4)
    silence_sigpipe(accepted);
    return accepted;
#else
    return finish_descriptor(accepted);
#endif
}

// On Linux a Unix socket whose listener has a full queue gives -EAGAIN, and no event says
// when there is room: the caller has to try again after a while.
int
io_connect(int fd, const struct sockaddr *address, socklen_t length)
{
    if (io_calls()->connect(fd, address, length) == 0) {
        return 0;
    }
    // A second call would not go on with the first one but report EALREADY.
    return errno == EINTR ? -EINPROGRESS : (int)result_or_error(-1);
}

int
io_take_socket_error(int fd)
{
    int error = 0;
    socklen_t length = sizeof(error);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0) {
        return -errno;
    }
    return -error;
}

int
io_set_nonblocking(int fd, bool is_nonblocking)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) {
        return -errno;
    }
    if (is_nonblocking) {
        // Sockets made elsewhere pass here when they come under our care.
        silence_sigpipe(fd);
    }
    int wanted = is_nonblocking ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
    if (wanted != flags && fcntl(fd, F_SETFL, wanted) < 0) {
        return -errno;
    }
    return 0;
}

int
io_set_close_on_exec(int fd)
{
    int flags = fcntl(fd, F_GETFD);
    if (flags < 0) {
        return -errno;
    }
    if ((flags & FD_CLOEXEC) == 0 && fcntl(fd, F_SETFD, flags | FD_CLOEXEC) < 0) {
        return -errno; // not reached: it was open a moment ago
    }
    return 0;
}

int
io_set_no_delay(int fd)
{
    int on = 1;
    return setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0 ? -errno : 0;
}

int
io_set_hard_close(int fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    return setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) < 0 ? -errno
                                                                              : 0;
}

int
io_ready_now(int fd, unsigned events)
{
    struct pollfd query = {.fd = fd};
    query.events = (short)((events & EVENT_READ ? POLLIN : 0) |
                           (events & EVENT_PRIORITY ? POLLPRI : 0) |
                           (events & EVENT_WRITE ? POLLOUT : 0));
    int count;
    do {
        count = poll(&query, 1, 0);
    } while (count < 0 && errno == EINTR);
    if (count < 0) {
        return -errno; // not reached: poll() takes one descriptor
    }
    if (query.revents & POLLNVAL) {
        return -EBADF;
    }
    return (query.revents & POLLIN ? EVENT_READ : 0) |
           (query.revents & POLLPRI ? EVENT_PRIORITY : 0) |
           (query.revents & POLLOUT ? EVENT_WRITE : 0) |
           (query.revents & POLLERR ? EVENT_ERROR : 0) |
           (query.revents & POLLHUP ? EVENT_HANGUP : 0);
}

int
io_pipe(int ends[2])
{
    if (pipe(ends) < 0) {
        ends[0] = ends[1] = -1;
        return -errno;
    }
    int status = 0;
    for (int i = 0; i < 2 && status == 0; i++) {
        status = io_set_nonblocking(ends[i], true);
        if (status == 0) {
            status = io_set_close_on_exec(ends[i]);
        }
    }
    if (status < 0) {
        io_close_pipe(ends);
    }
    return status;
}

void
io_close_pipe(int ends[2])
{
    for (int i = 0; i < 2; i++) {
        if (ends[i] >= 0) {
            (void)io_close(ends[i]);
        }
        ends[i] = -1;
    }
}

int
io_close(int fd)
{
    // Never repeated: the number may belong to another thread's new file by then.
    if (io_calls()->close(fd) < 0 && errno != EINTR) {
        return -errno;
    }
    return 0;
}
