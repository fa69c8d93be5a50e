// io_calls.h: the system calls that move bytes and make descriptors, as a table.
//
// nonblocking_io.c makes each of them through io_calls(), so that something can stand in
// between: io_faults.c, in tests. In normal life that is an indirect call in the place of
// the one through the linker's table, and nothing is asked. Each entry is the call itself:
// it fails with -1 and errno, it may be interrupted, and it does what its flags say.
//
// Not here: calls that only ask or set something, and the waiting of the engines.

#ifndef CORONET_IO_CALLS_H
#define CORONET_IO_CALLS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#if defined(__linux__) || defined(__FreeBSD__) || defined(__NetBSD__) ||                 \
    defined(__OpenBSD__) || defined(__DragonFly__)
#define CORONET_HAVE_ACCEPT4 1
#endif

struct io_calls {
    ssize_t (*receive)(int fd, void *data, size_t length, int flags);
    ssize_t (*receive_message)(int fd, struct msghdr *message, int flags);
    ssize_t (*read)(int fd, void *data, size_t length);
    ssize_t (*send)(int fd, const void *data, size_t length, int flags);
    ssize_t (*send_message)(int fd, const struct msghdr *message, int flags);
    ssize_t (*write)(int fd, const void *data, size_t length);
    ssize_t (*write_vector)(int fd, const struct iovec *blocks, int count);
    // Of what was sent before it failed or was interrupted it returns the count.
    // ENOSYS where the system has no such call.
    ssize_t (*send_file)(int fd, int file_fd, int64_t offset, size_t length);
    ssize_t (*read_at)(int fd, void *data, size_t length, int64_t offset);
    // What it accepts is non-blocking and close-on-exec if CORONET_HAVE_ACCEPT4.
    int (*accept)(int fd, struct sockaddr *address, socklen_t *length);
    int (*connect)(int fd, const struct sockaddr *address, socklen_t length);
    int (*open_socket)(int domain, int type, int protocol);
    int (*duplicate)(int fd); // close-on-exec
    int (*close)(int fd);
};

// Those of the system.
extern const struct io_calls io_system_calls;

// Those in use. Set by io_faults.c alone.
extern _Atomic(const struct io_calls *) io_calls_in_use;

static inline const struct io_calls *
io_calls(void)
{
    return atomic_load_explicit(&io_calls_in_use, memory_order_relaxed);
}

#endif
