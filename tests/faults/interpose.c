// interpose.c: system calls that fail on purpose, put before the C library's by LD_PRELOAD.
//
// Each function here stands in for the C library's. It counts who called it, and makes the
// call, unless the plan says that this is the one that fails or does less than asked. The
// program under test (case.py) sets the plan and reads the counts by ctypes. A call belongs
// to the extension if it returns into it, and to Python if it returns anywhere else.
//
// What happens could happen in earnest:
//   * No byte is lost: a call that is cut short is made, with fewer bytes.
//   * close() closes, whatever it returns, as on Linux. connect() goes on after EINTR.
//   * After an EAGAIN, or less than there was, an edge-triggered registration is made anew:
//     the kernel would report news as well.
//
// Linux alone. The calls of one process count from all of its threads.

#define _GNU_SOURCE 1

#include "functions.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum function {
#define ENTRY(name) CALL_##name,
    FUNCTIONS(ENTRY)
#undef ENTRY
        FUNCTION_COUNT,
};

enum origin { FROM_EXTENSION, FROM_PYTHON, ORIGIN_COUNT };

EXPORT const char *const faults_names[] = {
#define ENTRY(name) #name,
    FUNCTIONS(ENTRY)
#undef ENTRY
        NULL,
};

struct plan {
    int function; // -1: nothing happens
    int origin;
    int64_t first;        // the place of the first call that it happens to, from 0 on
    int64_t count;        // how many in a row
    int error;            // errno; 0: it is cut short
    int64_t limit;        // to so many bytes; -1: to all but one
    int64_t milliseconds; // from the first time on; 0: no limit
};

#define MAX_BLOCKS 64
#define MAX_DESCRIPTORS 4096

static struct plan plan = {.function = -1};
static atomic_bool is_on;
static uintptr_t extension_start, extension_end;

// Forked children count on, so it lies in memory that they share.
static struct tally {
    _Atomic int64_t calls[FUNCTION_COUNT][ORIGIN_COUNT];
    _Atomic int64_t injected;
    _Atomic int64_t began_ms; // of the first that was injected
} * tally;

// What each descriptor is registered for, if by edges.
static struct registration {
    int epoll_fd; // 0: not registered
    struct epoll_event event;
} registrations[MAX_DESCRIPTORS];

// --- What case.py calls ------------------------------------------------------------------

EXPORT void
faults_set_extension(uintptr_t start, uintptr_t end)
{
    extension_start = start;
    extension_end = end;
    tally = mmap(NULL, sizeof(*tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                 -1, 0);
    if (tally == MAP_FAILED) {
        abort();
    }
}

// Counts from here on. [new_plan] NULL: nothing happens.
EXPORT void
faults_begin(const struct plan *new_plan)
{
    memset(tally, 0, sizeof(*tally));
    plan = new_plan == NULL ? (struct plan){.function = -1} : *new_plan;
    is_on = true;
}

EXPORT void
faults_end(void)
{
    is_on = false;
}

EXPORT int64_t
faults_count(int function, int origin)
{
    return tally->calls[function][origin];
}

EXPORT int64_t
faults_injected(void)
{
    return tally->injected;
}

// --- What each call asks -----------------------------------------------------------------

// The C library's own function.
#define REAL(name) ((__typeof__(&name))find_real(CALL_##name, #name))

static void *
find_real(enum function function, const char *name)
{
    static _Atomic(void *) found[FUNCTION_COUNT];
    void *real = found[function];
    if (real == NULL) {
        real = dlsym(RTLD_NEXT, name);
        found[function] = real;
    }
    return real;
}

// Whether the time is over in which the fault happens.
static bool
is_over(void)
{
    struct timespec now;
    if (plan.milliseconds == 0 || clock_gettime(CLOCK_MONOTONIC, &now) < 0) {
        return false;
    }
    int64_t now_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    if (tally->began_ms == 0) {
        tally->began_ms = now_ms;
    }
    return now_ms - tally->began_ms >= plan.milliseconds;
}

// Whether the fault happens to this call, which it counts.
static bool
happens(enum function function, void *caller)
{
    if (!is_on) {
        return false;
    }
    uintptr_t place = (uintptr_t)caller;
    enum origin origin =
        place >= extension_start && place < extension_end ? FROM_EXTENSION : FROM_PYTHON;
    int64_t index = tally->calls[function][origin]++;
    if ((int)function != plan.function || (int)origin != plan.origin ||
        index < plan.first || index - plan.first >= plan.count || is_over()) {
        return false;
    }
    tally->injected++;
    return true;
}

static int
fail(void)
{
    errno = plan.error;
    return -1;
}

#define HAPPENS(name) happens(CALL_##name, __builtin_return_address(0))

// The kernel would tell of readiness that came after an EAGAIN.
static void
report_again(int fd)
{
    if (fd >= 0 && fd < MAX_DESCRIPTORS && registrations[fd].epoll_fd != 0) {
        int error = errno;
        (void)REAL(epoll_ctl)(registrations[fd].epoll_fd, EPOLL_CTL_MOD, fd,
                              &registrations[fd].event);
        errno = error;
    }
}

static ssize_t
fail_and_report(int fd)
{
    if (plan.error == EAGAIN) {
        report_again(fd);
    }
    return fail();
}

// Whether bytes may be left behind: packets have borders, and an eventfd's number is whole.
static bool
is_stream(int fd)
{
    struct stat status;
    if (REAL(fstat)(fd, &status) < 0) {
        return false;
    }
    if (S_ISSOCK(status.st_mode)) {
        int type = 0;
        socklen_t length = sizeof(type);
        return REAL(getsockopt)(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 &&
               type == SOCK_STREAM;
    }
    return S_ISFIFO(status.st_mode) || S_ISREG(status.st_mode);
}

// An eventfd with room for its number is interrupted at most, and so are other files without
// a type, which have no bytes.
static bool
cannot_fail_so(int fd)
{
    struct stat status;
    return plan.error != EINTR && REAL(fstat)(fd, &status) == 0 &&
           (status.st_mode & S_IFMT) == 0;
}

// To how many bytes a call for [length] is cut: not to none, which would be an end of file.
static size_t
cut_length(size_t length)
{
    size_t limit = plan.limit < 0 ? length - 1 : (size_t)plan.limit;
    return limit == 0 ? 1 : limit < length ? limit : length;
}

// The first [length] bytes of [blocks]; returns how many blocks they take.
static int
cut_blocks(struct iovec cut[MAX_BLOCKS], const struct iovec *blocks, size_t count)
{
    size_t length = 0;
    for (size_t i = 0; i < count; i++) {
        length += blocks[i].iov_len;
    }
    length = length > 0 ? cut_length(length) : 0;
    int cut_count = 0;
    while (length > 0 && cut_count < MAX_BLOCKS) {
        cut[cut_count] = blocks[cut_count];
        if (cut[cut_count].iov_len > length) {
            cut[cut_count].iov_len = length;
        }
        length -= cut[cut_count++].iov_len;
    }
    return cut_count;
}

// --- Calls that move bytes ---------------------------------------------------------------

// A call that moves [length] bytes: as ever, cut short, or failing.
#define MOVE(name, fd, length, ...)                                                      \
    do {                                                                                 \
        if (!HAPPENS(name)) {                                                            \
            return REAL(name)(__VA_ARGS__);                                              \
        }                                                                                \
        if (cannot_fail_so(fd)) {                                                        \
            tally->injected--;                                                           \
            return REAL(name)(__VA_ARGS__);                                              \
        }                                                                                \
        if (plan.error != 0) {                                                           \
            return fail_and_report(fd);                                                  \
        }                                                                                \
        if ((length) > 0 && is_stream(fd)) {                                             \
            (length) = cut_length(length);                                               \
        }                                                                                \
        ssize_t moved_ = REAL(name)(__VA_ARGS__);                                        \
        report_again(fd);                                                                \
        return moved_;                                                                   \
    } while (false)

EXPORT ssize_t
read(int fd, void *data, size_t length)
{
    MOVE(read, fd, length, fd, data, length);
}

EXPORT ssize_t
write(int fd, const void *data, size_t length)
{
    MOVE(write, fd, length, fd, data, length);
}

EXPORT ssize_t
recv(int fd, void *data, size_t length, int flags)
{
    MOVE(recv, fd, length, fd, data, length, flags);
}

EXPORT ssize_t
send(int fd, const void *data, size_t length, int flags)
{
    MOVE(send, fd, length, fd, data, length, flags);
}

EXPORT ssize_t
pread(int fd, void *data, size_t length, off_t offset)
{
    MOVE(pread, fd, length, fd, data, length, offset);
}

EXPORT ssize_t
pread64(int fd, void *data, size_t length, off64_t offset)
{
    MOVE(pread, fd, length, fd, data, length, offset);
}

EXPORT ssize_t
sendfile(int fd, int file_fd, off_t *offset, size_t length)
{
    MOVE(sendfile, fd, length, fd, file_fd, offset, length);
}

EXPORT ssize_t
sendfile64(int fd, int file_fd, off64_t *offset, size_t length)
{
    MOVE(sendfile, fd, length, fd, file_fd, offset, length);
}

EXPORT ssize_t
writev(int fd, const struct iovec *blocks, int count)
{
    if (!HAPPENS(writev)) {
        return REAL(writev)(fd, blocks, count);
    }
    if (plan.error != 0) {
        return fail_and_report(fd);
    }
    struct iovec cut[MAX_BLOCKS];
    ssize_t moved = REAL(writev)(fd, cut, cut_blocks(cut, blocks, (size_t)count));
    report_again(fd);
    return moved;
}

// The message with fewer bytes, in [cut], if there may be fewer.
static struct msghdr
cut_message(int fd, const struct msghdr *message, struct iovec cut[MAX_BLOCKS])
{
    struct msghdr result = *message;
    if (is_stream(fd)) {
        result.msg_iovlen =
            (size_t)cut_blocks(cut, message->msg_iov, message->msg_iovlen);
        result.msg_iov = cut;
    }
    return result;
}

EXPORT ssize_t
sendmsg(int fd, const struct msghdr *message, int flags)
{
    if (!HAPPENS(sendmsg)) {
        return REAL(sendmsg)(fd, message, flags);
    }
    if (plan.error != 0) {
        return fail_and_report(fd);
    }
    struct iovec blocks[MAX_BLOCKS];
    struct msghdr cut = cut_message(fd, message, blocks);
    ssize_t moved = REAL(sendmsg)(fd, &cut, flags);
    report_again(fd);
    return moved;
}

EXPORT ssize_t
recvmsg(int fd, struct msghdr *message, int flags)
{
    if (!HAPPENS(recvmsg)) {
        return REAL(recvmsg)(fd, message, flags);
    }
    if (plan.error != 0) {
        return fail_and_report(fd);
    }
    struct iovec blocks[MAX_BLOCKS];
    struct msghdr cut = cut_message(fd, message, blocks);
    ssize_t moved = REAL(recvmsg)(fd, &cut, flags);
    message->msg_namelen = cut.msg_namelen;
    message->msg_controllen = cut.msg_controllen;
    message->msg_flags = cut.msg_flags;
    report_again(fd);
    return moved;
}

// --- Calls with a part that happens all the same -----------------------------------------

static void
forget_registration(int fd)
{
    if (fd >= 0 && fd < MAX_DESCRIPTORS) {
        registrations[fd].epoll_fd = 0;
    }
}

EXPORT int
close(int fd)
{
    bool fails = HAPPENS(close);
    int result = REAL(close)(fd);
    if (result == 0) {
        forget_registration(fd);
    }
    return fails ? fail() : result;
}

EXPORT int
connect(int fd, const struct sockaddr *address, socklen_t length)
{
    if (!HAPPENS(connect)) {
        return REAL(connect)(fd, address, length);
    }
    if (plan.error == EINTR || plan.error == EINPROGRESS) {
        if (REAL(connect)(fd, address, length) < 0 && errno != EINPROGRESS) {
            return -1;
        }
        report_again(fd);
    }
    return (int)fail_and_report(fd);
}

// A socket without a peer gets one later, and then there is news.
EXPORT int
getpeername(int fd, struct sockaddr *address, socklen_t *length)
{
    if (!HAPPENS(getpeername)) {
        return REAL(getpeername)(fd, address, length);
    }
    if (plan.error == ENOTCONN) {
        report_again(fd);
    }
    return fail();
}

EXPORT int
accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
    return HAPPENS(accept4) ? (int)fail_and_report(fd)
                            : REAL(accept4)(fd, address, length, flags);
}

EXPORT int
epoll_ctl(int epoll_fd, int operation, int fd, struct epoll_event *event)
{
    if (HAPPENS(epoll_ctl)) {
        return fail();
    }
    int result = REAL(epoll_ctl)(epoll_fd, operation, fd, event);
    if (result == 0 && fd < MAX_DESCRIPTORS) {
        forget_registration(fd);
        if (operation != EPOLL_CTL_DEL && (event->events & EPOLLET) != 0) {
            registrations[fd].event = *event;
            registrations[fd].epoll_fd = epoll_fd;
        }
    }
    return result;
}

// Its result is the error, and not -1.
EXPORT int
pthread_getcpuclockid(pthread_t thread, clockid_t *clock)
{
    return HAPPENS(pthread_getcpuclockid) ? plan.error
                                          : REAL(pthread_getcpuclockid)(thread, clock);
}

EXPORT unsigned
if_nametoindex(const char *name)
{
    if (HAPPENS(if_nametoindex)) {
        (void)fail();
        return 0;
    }
    return REAL(if_nametoindex)(name);
}

// --- Calls that fail and do nothing then -------------------------------------------------

#define FAIL_OR(type, name, parameters, ...)                                             \
    EXPORT type name parameters                                                          \
    {                                                                                    \
        return HAPPENS(name) ? fail() : REAL(name)(__VA_ARGS__);                         \
    }

FAIL_OR(int, bind, (int fd, const struct sockaddr *address, socklen_t length), fd,
        address, length)
FAIL_OR(int, dup, (int fd), fd)
FAIL_OR(int, epoll_create1, (int flags), flags)
FAIL_OR(int, epoll_wait,
        (int fd, struct epoll_event *events, int capacity, int timeout_ms), fd, events,
        capacity, timeout_ms)
FAIL_OR(int, eventfd, (unsigned number, int flags), number, flags)
FAIL_OR(int, fstat, (int fd, struct stat *status), fd, status)
FAIL_OR(int, getsockname, (int fd, struct sockaddr *address, socklen_t *length), fd,
        address, length)
FAIL_OR(int, getsockopt, (int fd, int level, int name, void *value, socklen_t *length),
        fd, level, name, value, length)
FAIL_OR(int, listen, (int fd, int backlog), fd, backlog)
FAIL_OR(int, pipe, (int ends[2]), ends)
FAIL_OR(int, pipe2, (int ends[2], int flags), ends, flags)
FAIL_OR(int, poll, (struct pollfd * queries, nfds_t count, int timeout_ms), queries,
        count, timeout_ms)
FAIL_OR(int, setsockopt,
        (int fd, int level, int name, const void *value, socklen_t length), fd, level,
        name, value, length)
FAIL_OR(int, shutdown, (int fd, int how), fd, how)
FAIL_OR(int, sigpending, (sigset_t * signals), signals)
FAIL_OR(int, sigtimedwait,
        (const sigset_t *signals, siginfo_t *info, const struct timespec *timeout),
        signals, info, timeout)
FAIL_OR(int, socket, (int domain, int type, int protocol), domain, type, protocol)
FAIL_OR(int, socketpair, (int domain, int type, int protocol, int ends[2]), domain, type,
        protocol, ends)
FAIL_OR(int, unlink, (const char *path), path)
FAIL_OR(int, waitid, (idtype_t kind, id_t id, siginfo_t *info, int options), kind, id,
        info, options)
FAIL_OR(pid_t, waitpid, (pid_t pid, int *status, int options), pid, status, options)

// Names of their own that the C library has for the same, with 64 bits for sizes.

EXPORT int
fstat64(int fd, struct stat64 *status)
{
    return HAPPENS(fstat) ? fail() : REAL(fstat)(fd, (struct stat *)status);
}

EXPORT off_t
lseek(int fd, off_t offset, int whence)
{
    return HAPPENS(lseek) ? fail() : REAL(lseek)(fd, offset, whence);
}

EXPORT off64_t
lseek64(int fd, off64_t offset, int whence)
{
    return HAPPENS(lseek) ? fail() : REAL(lseek)(fd, offset, whence);
}

// --- Calls with arguments that depend on others ------------------------------------------

// Each of these has at most one more, which fits a pointer.
#define FAIL_OR_VARIADIC(name, alias, type)                                              \
    EXPORT int alias(int fd, type operation, ...)                                        \
    {                                                                                    \
        va_list arguments;                                                               \
        va_start(arguments, operation);                                                  \
        void *argument = va_arg(arguments, void *);                                      \
        va_end(arguments);                                                               \
        return HAPPENS(name) ? fail() : REAL(name)(fd, operation, argument);             \
    }

FAIL_OR_VARIADIC(fcntl, fcntl, int)
FAIL_OR_VARIADIC(fcntl, fcntl64, int)
FAIL_OR_VARIADIC(ioctl, ioctl, unsigned long)

// Of the calls that the C library has no function for, pidfd_open alone.
EXPORT long
syscall(long number, ...)
{
    long values[6];
    va_list arguments;
    va_start(arguments, number);
    for (int i = 0; i < 6; i++) {
        values[i] = va_arg(arguments, long);
    }
    va_end(arguments);
    if (number == SYS_pidfd_open && HAPPENS(syscall)) {
        return fail();
    }
    return REAL(syscall)(number, values[0], values[1], values[2], values[3], values[4],
                         values[5]);
}
