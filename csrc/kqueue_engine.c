// kqueue_engine.c: the wait loop on macOS and the BSDs. See engine.h for the contract.
//
// Called by the reactor and, under another clock, by the fake engine. It keeps nothing
// about single descriptors: the kernel's list is the only one. Elsewhere this file compiles
// to nothing; tests on Linux run it over a stand-in.
//
// Facts about kqueue, and what follows from each:
//
// 1. What is registered is a filter of a descriptor (a knote): reading and writing are two.
//    So one call carries both changes, and the two events of one descriptor, which come
//    apart and in any order, are joined before they are handed on.
// 2. A change is reported where it is made: with EV_RECEIPT each change gives one entry in
//    the event list, its errno in `data`, and the call does not wait. The list is exactly as
//    long as the changes, so that no real event is taken by accident. The waiting call
//    carries no changes: their errors would look like events, or, with a full list, end
//    the call and leave the later changes undone.
// 3. EV_ADD on what is there changes the token but, on some systems, neither EV_CLEAR nor
//    the filter's flags, and it never says EEXIST. So modifying is deleting and adding.
// 4. EV_ADD looks at the state at once: what is ready already is reported, EV_CLEAR or not.
//    So raising the interest never loses an edge.
// 5. EV_CLEAR reports news, not states, and news is any more bytes, read or not. A write
//    filter may tell of room that was there before.
// 6. Closing the descriptor ends its knotes, whatever duplicates there are. Emulations are
//    less sure of it, so we delete before we close all the same.
// 7. EV_EOF comes with what is still to be read, not behind it, and emulations may leave it
//    out. So it adds to EVENT_READ and never replaces it, and `data` is used for nothing: it
//    counts differently from system to system. Readers go on to 0 or EAGAIN.
// 8. EV_EOF is said of one direction; `fflags` then has the socket's error, which stays
//    pending. Whether both are over, only poll(2) tells.
// 9. A pipe without a reader refuses the write filter with EPIPE; the read filter then tells
//    of the end. Regular files and directories are accepted, though always ready: we refuse
//    them as the other engines do.
// 10. Urgent data has a filter of its own (EVFILT_EXCEPT) on some systems and none on others
//    (FreeBSD), where it ends a read short without any event. So a short read proves nothing.
// 11. EVFILT_USER is triggered by a change from any thread, and EV_CLEAR resets it when it is
//    fetched. Where it is missing a pipe does the same.
// 12. A forked child does not inherit the kqueue: its number is free, and may have been given
//    out anew before after_fork() runs. So it is forgotten, not closed.
// 13. Timeouts are relative and some systems refuse long ones or end a little early. We wait
//    in slices until our own clock says that it is time.
// 14. What does not fit the list stays active and comes first next time; a filter that is
//    reported by level goes to the end of the line.

#if defined(__APPLE__) || defined(__FreeBSD__) || defined(__NetBSD__) ||                 \
    defined(__OpenBSD__) || defined(__DragonFly__) || defined(CORONET_HAVE_KQUEUE)

#include "event_index.h"
#include "nonblocking_io.h"

#include <sys/types.h>

#include <sys/event.h>
#include <sys/stat.h>
#include <sys/time.h>

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// A token is carried in a pointer's place.
_Static_assert(sizeof(void *) >= sizeof(uint64_t), "kqueue needs 64-bit pointers");

// Tests may ask for the pipe where there is the filter.
#if !defined(EVFILT_USER) && !defined(KQUEUE_WAKES_BY_PIPE)
#define KQUEUE_WAKES_BY_PIPE 1
#endif

// Events fetched by one system call, whatever the caller has room for.
#define MAX_FETCHED_EVENTS EVENT_INDEX_CAPACITY

// The longest wait one system call is asked for: a day.
#ifndef KQUEUE_MAX_WAIT_NS
#define KQUEUE_MAX_WAIT_NS (INT64_C(86400) * NS_PER_SECOND)
#endif

#define NS_PER_SECOND 1000000000

struct engine {
    int kqueue_fd;    // owned; -1 if it could not be made again after a fork
    int wake_pipe[2]; // owned; -1 where EVFILT_USER wakes
    struct kevent fetched[MAX_FETCHED_EVENTS]; // scratch of wait_for_events
    struct event_index index;                  // likewise
};

static const struct filter {
    short name;
    unsigned event; // the EVENT_* bit
    unsigned flags; // the filter's own, which the event repeats if they are the reason
} filters[] = {
    {EVFILT_READ, EVENT_READ, 0},
    {EVFILT_WRITE, EVENT_WRITE, 0},
#if defined(EVFILT_EXCEPT) && defined(NOTE_OOB)
    {EVFILT_EXCEPT, EVENT_PRIORITY, NOTE_OOB},
#endif
};

#define FILTER_COUNT (sizeof(filters) / sizeof(filters[0]))
#define ALL_EVENTS ((unsigned)(EVENT_READ | EVENT_WRITE | EVENT_PRIORITY))

// --- Changes ----------------------------------------------------------------------------

// Makes [count] changes. Afterwards each has in `data` its errno, or 0. 0, or -errno if the
// call as a whole failed.
static int
submit_changes(const struct engine *engine, struct kevent *changes, int count)
{
    const struct timespec no_wait = {0};
    for (int i = 0; i < count; i++) {
        changes[i].flags |= EV_RECEIPT;
    }
    int status;
    do {
        // Interrupted before it began: what is waited for here is only a lock.
        status = kevent(engine->kqueue_fd, changes, count, changes, count, &no_wait);
    } while (status < 0 && errno == EINTR);
    return status < 0 ? -errno : 0;
}

// Writes one change for each of the [events]. Their number.
static int
list_changes(struct kevent *changes, int fd, unsigned events, unsigned flags,
             uint64_t token)
{
    int count = 0;
    for (size_t i = 0; i < FILTER_COUNT; i++) {
        if (events & filters[i].event) {
            changes[count++] = (struct kevent){
                .ident = (uintptr_t)fd,
                .filter = filters[i].name,
                .flags = (unsigned short)flags,
                .fflags = filters[i].flags,
                .udata = (void *)(uintptr_t)token,
            };
        }
    }
    return count;
}

// NULL for one that we never register.
static const struct filter *
find_filter(int name)
{
    for (size_t i = 0; i < FILTER_COUNT; i++) {
        if (filters[i].name == name) {
            return &filters[i];
        }
    }
    return NULL; // not reached: all come from our own table
}

// 0, -EBADF, or -EPERM for what is always ready.
static int
check_kind(int fd)
{
    struct stat status;
    if (fstat(fd, &status) < 0) {
        return -errno;
    }
    bool is_always_ready =
        S_ISREG(status.st_mode) || S_ISDIR(status.st_mode) || S_ISBLK(status.st_mode);
    return is_always_ready ? -EPERM : 0;
}

// What an errno of EV_ADD means to our caller.
static int
translate_add_error(int error)
{
    switch (error) {
    case EINVAL: // not reached: devices of the BSDs
    case ENODEV:
    case ENOTSUP:
#if EOPNOTSUPP != ENOTSUP
    case EOPNOTSUPP:
#endif
        return -EPERM; // a device that has no such filter
    default:
        return -error; // EBADF, ENOMEM, EPIPE, ...
    }
}

// Deletes the filters of [events]. 0, or -ENOENT or -EBADF if there was none.
static int
delete_filters(struct engine *engine, int fd, unsigned events)
{
    struct kevent changes[FILTER_COUNT];
    int count = list_changes(changes, fd, events, EV_DELETE, 0);
    int status = submit_changes(engine, changes, count);
    if (status < 0) {
        return status; // not reached: the kernel would have to lack memory
    }
    for (int i = 0; i < count; i++) {
        if (changes[i].data == 0) {
            return 0;
        }
        // A descriptor of a kind that has not every filter may say so here.
        status = changes[i].data == EBADF ? -EBADF : -ENOENT;
    }
    return status;
}

static int
add_filters(struct engine *engine, int fd, uint64_t token, unsigned interest,
            enum engine_trigger trigger)
{
    struct kevent changes[FILTER_COUNT];
    unsigned flags = EV_ADD | (trigger == ENGINE_EDGE ? EV_CLEAR : 0);
    int count = list_changes(changes, fd, interest, flags, token);
    if (count == 0) {
        // not reached: where urgent data can be waited for
        return -EOPNOTSUPP; // urgent data alone, where nothing tells of it
    }
    int status = submit_changes(engine, changes, count);
    if (status < 0) {
        return status; // not reached: the kernel would have to lack memory
    }
    unsigned added = 0;
    int error = 0;
    int tolerated = 0;
    for (int i = 0; i < count; i++) {
        int change_error = (int)changes[i].data;
        const struct filter *filter = find_filter(changes[i].filter);
        unsigned event = filter == NULL ? 0 : filter->event;
        if (change_error == 0) {
            added |= event;
        }
        else if (event == EVENT_PRIORITY || change_error == EPIPE) {
            // Only sockets have urgent data; fact 9 for the other.
            tolerated = translate_add_error(change_error);
        }
        else if (error == 0) {
            error = translate_add_error(change_error);
        }
    }
    if (error == 0 && added == 0) {
        error = tolerated;
    }
    if (error < 0 && added != 0) {
        // not reached: a descriptor takes all filters or none
        (void)delete_filters(engine, fd, added);
    }
    return error;
}

static int
add_fd(struct engine *engine, int fd, uint64_t token, unsigned interest,
       enum engine_trigger trigger)
{
    if (engine->kqueue_fd < 0) {
        return -EBADF; // not reached: no descriptors: the Python suite has it
    }
    int status = check_kind(fd);
    return status < 0 ? status : add_filters(engine, fd, token, interest, trigger);
}

static int
remove_fd(struct engine *engine, int fd)
{
    return delete_filters(engine, fd, ALL_EVENTS);
}

static int
modify_fd(struct engine *engine, int fd, uint64_t token, unsigned interest,
          enum engine_trigger trigger)
{
    if (trigger == ENGINE_LEVEL_SHARED) {
        return -EINVAL; // not reached: sockets that take turns are epoll's
    }
    int status = remove_fd(engine, fd);
    return status < 0 ? status : add_filters(engine, fd, token, interest, trigger);
}

// --- Wake-ups ---------------------------------------------------------------------------

#if defined(KQUEUE_WAKES_BY_PIPE)

static int
open_wake_up(struct engine *engine)
{
    int status = io_pipe(engine->wake_pipe);
    if (status < 0) {
        return status; // not reached: no descriptors: the Python suite has it
    }
    // By level: a wake-up that found the list full must come again.
    struct kevent change;
    list_changes(&change, engine->wake_pipe[0], EVENT_READ, EV_ADD, 0);
    status = submit_changes(engine, &change, 1);
    return status < 0 ? status : -(int)change.data;
}

static bool
take_wake_up(struct engine *engine, const struct kevent *event)
{
    if (event->ident != (uintptr_t)engine->wake_pipe[0]) {
        return false;
    }
    char bytes[64];
    while (io_read(engine->wake_pipe[0], bytes, sizeof(bytes)) > 0) {
    }
    return true;
}

static int
send_wake_up(struct engine *engine)
{
    ssize_t status = io_write(engine->wake_pipe[1], "", 1);
    // EAGAIN: the pipe is full, so a wake-up is pending already.
    return status < 0 && status != -EAGAIN ? (int)status : 0;
}

#else

static int
change_user_event(struct engine *engine, unsigned flags, unsigned filter_flags)
{
    struct kevent change = {
        .filter = EVFILT_USER,
        .flags = (unsigned short)flags,
        .fflags = filter_flags,
    };
    int status = submit_changes(engine, &change, 1);
    return status < 0 ? status : -(int)change.data;
}

static int
open_wake_up(struct engine *engine)
{
    return change_user_event(engine, EV_ADD | EV_CLEAR, 0);
}

static bool
take_wake_up(struct engine *engine, const struct kevent *event)
{
    (void)engine;
    return event->filter == EVFILT_USER; // EV_CLEAR has reset it
}

static int
send_wake_up(struct engine *engine)
{
    return change_user_event(engine, 0, NOTE_TRIGGER);
}

#endif

static int
wake_up(struct engine *engine)
{
    // A signal handler may be calling: the code it interrupted keeps its errno.
    int saved_errno = errno;
    int status = send_wake_up(engine);
    errno = saved_errno;
    return status;
}

// --- Opening ----------------------------------------------------------------------------

static void
close_descriptors(struct engine *engine)
{
    io_close_pipe(engine->wake_pipe);
    if (engine->kqueue_fd >= 0) {
        (void)io_close(engine->kqueue_fd);
    }
    engine->kqueue_fd = -1;
}

// 0, or -errno with no descriptor open.
static int
open_descriptors(struct engine *engine)
{
    int status;
    engine->wake_pipe[0] = engine->wake_pipe[1] = -1;
    engine->kqueue_fd = kqueue();
    if (engine->kqueue_fd < 0) {
        return -errno; // not reached: no descriptors: the Python suite has it
    }
    // kqueue1() would do it at once, but is not everywhere.
    status = io_set_close_on_exec(engine->kqueue_fd);
    if (status == 0) {
        status = open_wake_up(engine);
    }
    if (status < 0) {
        close_descriptors(engine); // not reached: no descriptors: the Python suite has it
    }
    return status;
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
        free(engine); // not reached: no descriptors: the Python suite has it
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
reopen_after_fork(struct engine *engine)
{
    // Fact 12. A pipe is inherited, though, and shared with the parent.
    engine->kqueue_fd = -1;
    io_close_pipe(engine->wake_pipe);
    return open_descriptors(engine);
}

// --- Waiting ----------------------------------------------------------------------------

// Events that come within [timeout_ns], in as many slices as it takes. A count or -errno.
static int
fetch_events(struct engine *engine, int room, int64_t timeout_ns)
{
    uint64_t start_ns = timeout_ns > 0 ? engine_monotonic_ns() : 0;
    int64_t left_ns = timeout_ns;
    for (;;) {
        int64_t slice_ns = left_ns > KQUEUE_MAX_WAIT_NS ? KQUEUE_MAX_WAIT_NS : left_ns;
        struct timespec timeout = {0};
        if (slice_ns > 0) {
            timeout.tv_sec = (time_t)(slice_ns / NS_PER_SECOND);
            timeout.tv_nsec = (long)(slice_ns % NS_PER_SECOND);
        }
        int count = kevent(engine->kqueue_fd, NULL, 0, engine->fetched, room,
                           timeout_ns < 0 ? NULL : &timeout);
        if (count < 0) {
            return -errno;
        }
        if (count > 0 || timeout_ns == 0) {
            return count;
        }
        if (timeout_ns > 0) {
            uint64_t passed_ns = engine_monotonic_ns() - start_ns;
            if (passed_ns >= (uint64_t)timeout_ns) {
                return 0;
            }
            left_ns = timeout_ns - (int64_t)passed_ns;
        }
    }
}

// What an event with EV_EOF says beside its direction.
static unsigned
describe_end(const struct kevent *event, const struct filter *filter)
{
    unsigned ready = filter->event == EVENT_READ ? EVENT_READ_HANGUP : 0;
    if (filter->flags == 0 && event->fflags != 0) {
        ready |= EVENT_ERROR;
    }
    // Fact 8. POLLNVAL: closed since, and the event is dropped by its token.
    struct pollfd query = {.fd = (int)event->ident, .events = 0};
    if (poll(&query, 1, 0) > 0) {
        ready |= (query.revents & POLLHUP) ? EVENT_HANGUP : 0u;
        ready |= (query.revents & POLLERR) ? EVENT_ERROR : 0u;
    }
    return ready;
}

// The EVENT_* bits of what was fetched, 0 if it says nothing.
static unsigned
translate_event(const struct kevent *event)
{
    const struct filter *filter = find_filter(event->filter);
    if (filter == NULL) {
        return 0; // not reached: all come from our own table
    }
    if (event->flags & EV_ERROR) {
        // Not by the letter, for the call made no changes; but emulations find out late.
        switch ((int)event->data) { // not reached: emulations other than ours
        case 0:                     // not reached: emulations other than ours
        case EBADF:
        case ENOENT:
            return 0; // it is closed: there is nobody to tell
        default:
            return filter->event | EVENT_ERROR; // its owner meets it at the next call
        }
    }
    if ((event->flags & EV_EOF) == 0) {
        return filter->event;
    }
    // The urgent data's filter reports an end too, with its own flag unset.
    bool is_end_alone = filter->flags != 0 && (event->fflags & filter->flags) == 0;
    return (is_end_alone ? 0 : filter->event) | describe_end(event, filter);
}

// Adds what was fetched to the [count] events that are there. Whether any of it is news.
static bool
join_fetched(struct engine *engine, int fetched_count, struct engine_event *events,
             int *count)
{
    bool is_news = false;
    for (int i = 0; i < fetched_count; i++) {
        const struct kevent *fetched = &engine->fetched[i];
        if (take_wake_up(engine, fetched)) {
            continue;
        }
        unsigned ready = translate_event(fetched);
        uint64_t token = (uint64_t)(uintptr_t)fetched->udata;
        if (ready != 0 && event_index_join(&engine->index, events, count, token, ready)) {
            is_news = true;
        }
    }
    return is_news;
}

static int
wait_for_events(struct engine *engine, struct engine_event *events, int capacity,
                int64_t timeout_ns)
{
    assert(capacity > 0);
    if (capacity > MAX_FETCHED_EVENTS) {
        capacity = MAX_FETCHED_EVENTS;
    }
    event_index_clear(&engine->index);
    int count = 0;
    bool is_news = true;
    // A list that was full may have left out the other filter of a descriptor. It ends when
    // nothing new comes, for what is reported by level would come for ever.
    while (count < capacity && is_news) {
        // No more than the caller can take: an edge that we threw away would not come
        // again.
        int room = capacity - count;
        int fetched_count = fetch_events(engine, room, timeout_ns);
        if (fetched_count < 0) {
            return count > 0 ? count : fetched_count;
        }
        is_news = join_fetched(engine, fetched_count, events, &count);
        if (fetched_count < room) {
            break;
        }
        timeout_ns = 0;
    }
    return count;
}

static uint64_t
read_clock(struct engine *engine)
{
    (void)engine;
    return engine_monotonic_ns();
}

// not reached: layer 3 asks
static bool
short_read_is_empty(const struct engine *engine)
{
    (void)engine;
    return false; // facts 7 and 10
}

const struct engine_operations kqueue_engine = {
    .name = "kqueue",
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
typedef int kqueue_engine_is_not_for_this_system;

#endif
