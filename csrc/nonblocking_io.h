// nonblocking_io.h: the system calls on descriptors, made uniform.
//
// Every function repeats a call that a signal interrupted, never blocks on a descriptor
// that is non-blocking, raises no SIGPIPE on sockets, and returns a count, a descriptor
// or 0, or else -errno; "would block" is always -EAGAIN. New descriptors are
// non-blocking and close-on-exec from the start, where the system can do it at once.
//
// Not here: waiting, buffering, any state.

#ifndef CORONET_NONBLOCKING_IO_H
#define CORONET_NONBLOCKING_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/socket.h>
#include <sys/uio.h>

// What fstat(2) and the socket layer tell of a descriptor.
struct io_description {
    uint64_t device; // with inode: which file this is, whatever its number
    uint64_t inode;
    bool has_identity; // false where the two are the same for all files of its kind
    bool is_pollable;  // false for regular files and directories
    bool is_socket;
    bool is_listening;
    bool is_stream;          // false for datagram sockets
    bool is_internet_stream; // SOCK_STREAM over AF_INET or AF_INET6
    bool was_nonblocking;    // O_NONBLOCK before we came
};

// The address family of a socket (AF_INET ...), or -errno.
int io_socket_family(int fd);

// Fills [*description]; 0 or -errno (-EBADF: not an open descriptor).
int io_describe(int fd, struct io_description *description);

// Bytes read, 0 at the end of file, or -errno. receive is for sockets.
ssize_t io_receive(int fd, void *data, size_t length);
ssize_t io_read(int fd, void *data, size_t length);

// Bytes written, at least 1 if [length] is not 0, or -errno. send is for sockets.
ssize_t io_send(int fd, const void *data, size_t length);
ssize_t io_write(int fd, const void *data, size_t length);

// Several blocks in one call; the same results. [count] is at most 64.
ssize_t io_send_vector(int fd, const struct iovec *blocks, int count);
ssize_t io_write_vector(int fd, const struct iovec *blocks, int count);

// Bytes read at [offset] of a file, 0 at its end, or -errno, which is never -EAGAIN but -EIO:
// a file cannot be waited for. The file's own position stays.
ssize_t io_read_at(int fd, void *data, size_t length, int64_t offset);

// The size of the file that can be read at any place; [*size] is -1 for a device, which has
// none. 0, -ESPIPE (a pipe, a socket), -EISDIR, or another -errno.
int io_file_size(int fd, int64_t *size);

// A second descriptor of the same file, close-on-exec; or -errno.
int io_duplicate(int fd);

// Sends at most [length] bytes of the file [file_fd] from [offset] on, without copying them
// through the process: sendfile(2). The count, 0 if the file ends there, or -errno;
// -EOPNOTSUPP for whatever means that this file or this descriptor has to be read and
// written instead. Blocks while the disk is read.
ssize_t io_send_file(int fd, int file_fd, int64_t offset, size_t length);

// recvmsg(2) and sendmsg(2). Descriptors received are close-on-exec.
ssize_t io_receive_message(int fd, struct msghdr *message, int flags);
ssize_t io_send_message(int fd, const struct msghdr *message, int flags);

// How many bytes of ancillary data follow [header], one of those that came with
// [message]: less than it claims if the kernel had no room for all of them.
size_t io_ancillary_length(const struct msghdr *message, const struct cmsghdr *header);

// A new socket.
int io_socket(int domain, int type, int protocol);

// Takes one connection off the listener's queue: its descriptor, the peer's address in
// [address] ([*length] bytes of room, then as many as there are), or -errno.
int io_accept(int fd, struct sockaddr *address, socklen_t *length);

// Starts to connect: 0 (done), -EINPROGRESS (wait until writable, then ask
// io_take_socket_error) or -errno. An interrupted connect goes on: -EINPROGRESS.
int io_connect(int fd, const struct sockaddr *address, socklen_t length);

// 0, or the pending error of a socket as -errno, which is cleared by asking.
int io_take_socket_error(int fd);

int io_set_nonblocking(int fd, bool is_nonblocking);
int io_set_close_on_exec(int fd);
int io_set_no_delay(int fd); // TCP_NODELAY

// SO_LINGER with zero time: close() resets instead of lingering.
int io_set_hard_close(int fd);

// What [fd] is ready for right now: EVENT_* bits out of [events], and those that come
// unasked; 0 for nothing. Or -errno.
int io_ready_now(int fd, unsigned events);

// A pipe, reading end first, both ends non-blocking and close-on-exec. 0, or -errno with
// both -1.
int io_pipe(int ends[2]);

// Closes the ends that are not -1, and makes them -1.
void io_close_pipe(int ends[2]);

// close(2). An interrupted close counts as done: the descriptor is gone on every
// system this runs on.
int io_close(int fd);

#endif
