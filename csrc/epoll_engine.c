// epoll_engine.c: the wait loop on Linux. See engine.h for the contract.
//
// Called by the reactor and, under another clock, by the fake engine. It keeps nothing
// about single descriptors: the kernel's interest list is the only one. Elsewhere than
// on Linux this file compiles to nothing.
//
// Facts about epoll, and what follows from each:
//
// 1. EPOLLET reports news, not states. An edge is due whenever more bytes come, read or
//    not, and never again for bytes that were there before. So whoever got an event owns
//    it until the call says EAGAIN. A short read proves an empty buffer only on a TCP
//    socket with no RDHUP, HUP, ERR or PRI: urgent bytes, an end of file or passed
//    descriptors end a read short with more behind them and no new edge to come.
// 2. EPOLLRDHUP must be asked for, EPOLLHUP and EPOLLERR need not. We ask for it with
//    every interest in reading, so that a caller can tell that a short read is not all.
//    EPOLLPRI costs an extra wake-up for each urgent byte, so only whoever names it
//    gets it.
// 3. What is registered is the pair of an open file and a number. The last close of the
//    *file* removes it, the close of the number alone does not: with a duplicate alive
//    (dup, fork, a descriptor in flight) events of the old file go on under the old
//    token, and no call can name them any more, for EPOLL_CTL_DEL looks at what the
//    number means now. So we remove before we close, and tokens have generations. If
//    others closed the number, a level-triggered orphan would end every wait at once:
//    one more reason to watch connections by edges.
// 4. A duplicate has another number, so it can be added besides the original. EEXIST
//    means the same number and file; ENOENT that the number means another file by now.
// 5. EPERM: the file has no poll operation (regular files, directories, /dev/null). It
//    is always ready. EPOLL_CTL_DEL on such a file is EPERM too.
// 6. EPOLLEXCLUSIVE can only be added, not modified (EINVAL), and only with IN, OUT and
//    ET: with RDHUP or PRI it is EINVAL. It wakes at least one waiting process, not
//    exactly one. A wake-up that went to a process which then died is lost.
// 7. EPOLL_CTL_MOD looks at the state anew: what is ready already is reported, even with
//    EPOLLET. So raising the interest never loses an edge.
// 8. EPOLLONESHOT is not used: it would cost an epoll_ctl for each wait of each
//    connection, where one edge-triggered registration serves all its life.
// 9. The timeout is an int of milliseconds, and the kernel never ends a wait before it.
//    We round up, or a wait would end up to a millisecond early and be repeated in a
//    busy loop until the deadline. epoll_pwait2 takes nanoseconds but needs glibc 2.35.
// 10. A forked child shares the instance: what it adds or removes, it does to its parent,
//    and its wait takes its parent's edges. So after a fork it may only close it.
// 11. epoll_wait is never restarted after a signal handler, SA_RESTART or not.
// 12. Threads may add, modify and remove while another one waits.
// 13. What does not fit the array stays on the kernel's ready list, whose head moves on:
//    nobody starves, and no edge is lost.

#if defined(__linux__)

#include "engine.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

// The users' bits are the kernel's, so that translating an event is copying it.
_Static_assert((int)EVENT_READ == (int)EPOLLIN, "EVENT_READ");
_Static_assert((int)EVENT_PRIORITY == (int)EPOLLPRI, "EVENT_PRIORITY");
_Static_assert((int)EVENT_WRITE == (int)EPOLLOUT, "EVENT_WRITE");
_Static_assert((int)EVENT_ERROR == (int)EPOLLERR, "EVENT_ERROR");
_Static_assert((int)EVENT_HANGUP == (int)EPOLLHUP, "EVENT_HANGUP");
_Static_assert((int)EVENT_READ_HANGUP == (int)EPOLLRDHUP, "EVENT_READ_HANGUP");

// Events fetched by one system call, whatever the caller has room for.
#define MAX_FETCHED_EVENTS 256

// The longest wait one system call is asked for. Tests may make it small.
#ifndef EPOLL_MAX_WAIT_MS
#define EPOLL_MAX_WAIT_MS INT_MAX
#endif

// No descriptor has the number -1, so this is nobody's token.
#define WAKE_TOKEN UINT64_MAX

#define NS_PER_MS 1000000

struct engine {
    int epoll_fd; // owned; -1 if it could not be made again after a fork
    int wake_fd;  // an eventfd, owned; -1 likewise
    struct epoll_event fetched[MAX_FETCHED_EVENTS]; // scratch of wait_for_events
};

static void
close_descriptors(struct engine *engine)
{
    if (engine->wake_fd >= 0) {
        (void)close(engine->wake_fd);
    }
    if (engine->epoll_fd >= 0) {
        (void)close(engine->epoll_fd);
    }
    engine->epoll_fd = engine->wake_fd = -1;
}

// 0, or -errno with both descriptors -1.
static int
open_descriptors(struct engine *engine)
{
    int error;
    engine->wake_fd = -1;
    engine->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (engine->epoll_fd < 0) {
        return -errno;
    }
    engine->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (engine->wake_fd < 0) {
        error = errno;
        goto fail;
    }
    // By level: a wake-up that found the array full must come again.
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = WAKE_TOKEN};
    if (epoll_ctl(engine->epoll_fd, EPOLL_CTL_ADD, engine->wake_fd, &event) < 0) {
        error = errno;
        goto fail;
    }
    return 0;

fail:
    close_descriptors(engine);
    return -error;
}

static int
open_engine(struct engine **result)
{
    struct engine *engine = calloc(1, sizeof(*engine));
    if (engine == NULL) {
        return -ENOMEM;
    }
    int status = open_descriptors(engine);
    if (status < 0) {
        free(engine);
        return status;
    }
    *result = engine;
    return 0;
}

static void
close_engine(struct engine *engine)
{
    close_descriptors(engine);
    free(engine);
}

static int
change_watch(struct engine *engine, int operation, int fd, uint64_t token,
             unsigned interest, enum engine_trigger trigger)
{
    struct epoll_event event = {
        .events = interest & (EVENT_READ | EVENT_WRITE | EVENT_PRIORITY),
        .data.u64 = token,
    };
    if (trigger == ENGINE_LEVEL_SHARED) {
        // Fact 6: neither RDHUP nor PRI may stand beside it. A listener has neither.
        event.events &= ~(uint32_t)EPOLLPRI;
        event.events |= EPOLLEXCLUSIVE;
    }
    else {
        if (interest & EVENT_READ) {
            event.events |= EPOLLRDHUP;
        }
        if (trigger == ENGINE_EDGE) {
            event.events |= EPOLLET;
        }
    }
    if (epoll_ctl(engine->epoll_fd, operation, fd, &event) < 0) {
        return -errno;
    }
    return 0;
}

static int
add_fd(struct engine *engine, int fd, uint64_t token, unsigned interest,
       enum engine_trigger trigger)
{
    return change_watch(engine, EPOLL_CTL_ADD, fd, token, interest, trigger);
}

static int
modify_fd(struct engine *engine, int fd, uint64_t token, unsigned interest,
          enum engine_trigger trigger)
{
    return change_watch(engine, EPOLL_CTL_MOD, fd, token, interest, trigger);
}

static int
remove_fd(struct engine *engine, int fd)
{
    // Kernels before 2.6.9 wanted an event here; a NULL costs nothing to avoid.
    struct epoll_event unused = {0};
    if (epoll_ctl(engine->epoll_fd, EPOLL_CTL_DEL, fd, &unused) < 0) {
        // Fact 5: a number that means a file without poll now was not watched either.
        return errno == EPERM ? -ENOENT : -errno;
    }
    return 0;
}

static void
drain_wake_ups(struct engine *engine)
{
    // One read takes them all. EAGAIN is impossible but harmless.
    uint64_t count;
    ssize_t length;
    do {
        length = read(engine->wake_fd, &count, sizeof(count));
    } while (length < 0 && errno == EINTR);
}

// epoll_wait for [timeout_ns], in as many slices as it takes. A count or -errno.
static int
fetch_events(struct engine *engine, int capacity, int64_t timeout_ns)
{
    // Written so that the largest timeout does not overflow.
    int64_t left_ms =
        timeout_ns < 0 ? -1
                       : timeout_ns / NS_PER_MS + (timeout_ns % NS_PER_MS != 0 ? 1 : 0);
    int count;
    do {
        int slice_ms = left_ms > EPOLL_MAX_WAIT_MS ? EPOLL_MAX_WAIT_MS : (int)left_ms;
        count = epoll_wait(engine->epoll_fd, engine->fetched, capacity, slice_ms);
        left_ms -= slice_ms;
    } while (count == 0 && left_ms > 0);
    return count < 0 ? -errno : count;
}

static int
wait_for_events(struct engine *engine, struct engine_event *events, int capacity,
                int64_t timeout_ns)
{
    assert(capacity > 0);
    if (capacity > MAX_FETCHED_EVENTS) {
        capacity = MAX_FETCHED_EVENTS;
    }
    // No more than the caller can take: an edge that we threw away would not come again.
    int fetched_count = fetch_events(engine, capacity, timeout_ns);
    if (fetched_count < 0) {
        return fetched_count;
    }
    struct engine_event *event = events;
    const struct epoll_event *end = engine->fetched + fetched_count;
    for (const struct epoll_event *fetched = engine->fetched; fetched < end; fetched++) {
        if (fetched->data.u64 == WAKE_TOKEN) {
            drain_wake_ups(engine);
            continue;
        }
        event->token = fetched->data.u64;
        event->ready = fetched->events;
        event++;
    }
    return (int)(event - events);
}

static int
wake_up(struct engine *engine)
{
    // A signal handler may be calling: the code it interrupted keeps its errno.
    int saved_errno = errno;
    uint64_t one = 1;
    int status = 0;
    ssize_t length;
    do {
        length = write(engine->wake_fd, &one, sizeof(one));
    } while (length < 0 && errno == EINTR);
    // EAGAIN: the counter is at its end, so a wake-up is pending already.
    if (length < 0 && errno != EAGAIN) {
        status = -errno; // not reached: an eventfd gives EAGAIN or 8 bytes
    }
    errno = saved_errno;
    return status;
}

static uint64_t
read_clock(struct engine *engine)
{
    (void)engine;
    return engine_monotonic_ns();
}

static int
reopen_after_fork(struct engine *engine)
{
    // Fact 10. The eventfd is shared as well: draining it would take the parent's wake-up.
    close_descriptors(engine);
    return open_descriptors(engine);
}

static bool
short_read_is_empty(const struct engine *engine)
{
    (void)engine;
    return true; // fact 1: whatever else ends a read short is reported
}

const struct engine_operations epoll_engine = {
    .name = "epoll",
    .open = open_engine,
    .close = close_engine,
    .add = add_fd,
    .modify = modify_fd,
    .remove = remove_fd,
    .wait = wait_for_events,
    .wake = wake_up,
    .now_ns = read_clock,
    .after_fork = reopen_after_fork,
    .short_read_is_empty = short_read_is_empty,
};

#else

// A translation unit must not be empty.
typedef int epoll_engine_is_not_for_this_system;

#endif
