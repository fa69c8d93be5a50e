// kqueue_shim.c: kqueue() and kevent() over epoll, so that Linux can run the kqueue engine.
//
// Only test builds contain it, and it has what csrc/kqueue_engine.c uses and no more.
// Where BSDs differ from each other it takes the stricter side: an engine that runs here
// has not relied on the kindness of one system.
//
// How it works is how the BSDs do it: a kqueue holds a queue of active knotes. A knote
// gets there when news of its descriptor come and whenever it is registered; one that is
// taken out is looked at again and dropped if it is not ready any more. Of those that are
// reported, EV_CLEAR leaves the queue and the others go to its end, so nobody starves,
// and what the caller has no room for just stays where it is. Epoll, always by edges,
// is where news come from, and poll(2) says what is the case.
//
// Facts, and what follows from each:
//
// 1. A kqueue is closed by a plain close(), which nobody can see here. So its number is
//    an epoll descriptor and there is no other one to leak: memory is kept by the number
//    and used again when kqueue() gets that number again.
// 2. An EVFILT_USER event needs something that makes epoll report. That is one eventfd
//    for the whole process, readable for ever and never read: each kqueue has it
//    disarmed (EPOLLONESHOT), and arming it is the wake-up. This is one system call and
//    one atomic flag, without a lock, and so can be done in a signal handler.
// 3. READ and WRITE are knotes of their own, but epoll has one entry for a number. Each
//    descriptor is watched for everything, once and for good: changing an entry would
//    report anew what another knote has reported already, and would hide that an engine
//    forgot to ask. What remains: news of one direction may bring an event of the other
//    whose bytes are still unread.
// 4. Knotes die when their number is closed. Epoll's entries do the same, as long as the
//    file has no duplicate, and EPOLL_CTL_ADD shows it without touching anything: EEXIST
//    says that the number still means the file that was registered. Generations tell the
//    news of an orphan (closed, with a duplicate alive) from those of its successor.
// 5. A change of an existing knote, be it EV_ADD or only EV_ENABLE, sets its udata and
//    looks at its state anew, but leaves EV_CLEAR as it was.
// 6. A socket's error cannot be seen on Linux without being taken. So where there is one
//    fflags is not 0, but which one it is is made up.
// 7. Linux does not say that only our own direction was shut down: EV_EOF of WRITE comes
//    when both are over.
// 8. macOS refuses timeouts above 100,000,000 seconds. So do we.
// 9. A forked child has no kqueue: its numbers are free.
// 10. BSDs watch regular files and directories, which epoll refuses, and refuse to watch
//    a pipe without a reader for writing, which epoll does not. We do what BSDs do, though
//    a file is never reported here.

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include "sys/event.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_DESCRIPTORS 65536
#define MAX_FETCHED_EVENTS 64
#define MAX_TIMEOUT_S 100000000
#define NS_PER_S INT64_C(1000000000)
#define NS_PER_MS 1000000

// Nobody's generation, so nobody's news.
#define NO_NEWS 0

enum { READ_KNOTE, WRITE_KNOTE, EXCEPT_KNOTE, KNOTES_PER_FD };

struct knote {
    TAILQ_ENTRY(knote) link;
    struct kevent registered;  // ident, filter, flags and udata as they were given
    unsigned long reported_in; // which scan of the queue has reported it last
    bool is_added;
    bool is_queued;
};

struct watched_fd {
    uint32_t generation; // of the entry in epoll; 0 if there is none
    struct knote knotes[KNOTES_PER_FD];
};

TAILQ_HEAD(knote_queue, knote);

struct kqueue {
    atomic_bool is_open;        // as far as can be known: fact 1
    atomic_bool has_user_knote; // these two are what a signal handler touches
    atomic_bool is_triggered;   // not in the queue yet
    struct knote user_knote;
    struct knote_queue active;      // owned by the knotes' tables
    struct watched_fd *watched_fds; // MAX_DESCRIPTORS, mapped at first use and kept
    unsigned long scan_count;
    uint32_t last_generation;
    int waiting_count; // threads inside of epoll_wait
};

// By number. What is never touched takes no memory.
static struct kqueue kqueues[MAX_DESCRIPTORS];
static int highest_kq = -1;

// Over all of the above but the atomic fields; never held while waiting.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int always_ready_fd = -1; // fact 2

// The number of a kqueue's record.
static int
number_of(const struct kqueue *kqueue)
{
    return (int)(kqueue - kqueues);
}

// Registers a descriptor for [events] if it is not there. 0 or an errno; EEXIST: its very
// file is there already (fact 4).
static int
add_to_epoll(int kq, int fd, uint32_t events, uint32_t generation)
{
    struct epoll_event event = {
        .events = events,
        .data.u64 = (uint64_t)generation << 32 | (uint32_t)fd,
    };
    return epoll_ctl(kq, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : errno;
}

static void
remove_from_epoll(int kq, int fd)
{
    struct epoll_event unused = {.events = 0};
    (void)epoll_ctl(kq, EPOLL_CTL_DEL, fd, &unused);
}

// Whether [fd] still means what was registered in [kq]. 0 or an errno.
static int
find_in_epoll(int kq, int fd)
{
    int error = add_to_epoll(kq, fd, 0, NO_NEWS);
    if (error == EEXIST) {
        return 0;
    }
    if (error == 0) {
        remove_from_epoll(kq, fd);
    }
    return error == EBADF ? EBADF : ENOENT;
}

// Makes the thread that waits look at the queue. Safe in a signal handler.
static int
ring(int kq)
{
    struct epoll_event event = {
        .events = EPOLLIN | EPOLLONESHOT,
        .data.u64 = NO_NEWS,
    };
    return epoll_ctl(kq, EPOLL_CTL_MOD, always_ready_fd, &event) == 0 ? 0 : errno;
}

static void
activate(struct kqueue *kqueue, struct knote *knote)
{
    if (knote->is_added && !knote->is_queued) {
        knote->is_queued = true;
        TAILQ_INSERT_TAIL(&kqueue->active, knote, link);
    }
}

static void
deactivate(struct kqueue *kqueue, struct knote *knote)
{
    if (knote->is_queued) {
        knote->is_queued = false;
        TAILQ_REMOVE(&kqueue->active, knote, link);
    }
}

// The number means another file by now, or none.
static void
forget_fd(struct kqueue *kqueue, struct watched_fd *watched)
{
    for (int i = 0; i < KNOTES_PER_FD; i++) {
        deactivate(kqueue, &watched->knotes[i]);
        watched->knotes[i].is_added = false;
    }
    watched->generation = NO_NEWS;
}

// What is the case with a descriptor's knote. False: it is not ready.
static bool
evaluate(const struct knote *knote, struct kevent *event)
{
    int fd = (int)knote->registered.ident;
    int unread = 0;
    int type;
    socklen_t length = sizeof(type);
    struct pollfd state = {.fd = fd, .events = POLLIN | POLLOUT | POLLPRI | POLLRDHUP};
    if (poll(&state, 1, 0) <= 0) {
        return false;
    }
    unsigned ready = (unsigned)state.revents;
    bool is_socket = getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0;
    // The error of a pipe is that its other end is gone.
    bool is_over = (ready & POLLHUP) || (!is_socket && (ready & POLLERR));
    *event = knote->registered;
    if (event->filter == EVFILT_READ) {
        is_over = is_over || (ready & POLLRDHUP) != 0;
        // Fails for a listener, whose connections cannot be counted.
        event->data = ioctl(fd, FIONREAD, &unread) == 0 ? unread : 1;
        ready &= POLLIN | POLLRDHUP | POLLERR | POLLHUP;
    }
    else if (event->filter == EVFILT_WRITE) {
        ready &= POLLOUT | POLLERR | POLLHUP;
    }
    else {
        is_over = false;
        event->fflags = NOTE_OOB;
        ready &= POLLPRI;
    }
    if (is_over) {
        event->flags |= EV_EOF;
        event->fflags = is_socket && (ready & POLLERR) ? ECONNRESET : 0;
    }
    return ready != 0;
}

// Takes up to [capacity] events from the queue, each knote at most once.
static int
report_active(struct kqueue *kqueue, struct kevent *events, int capacity)
{
    int count = 0;
    struct knote *knote;
    kqueue->scan_count++;
    while (count < capacity && (knote = TAILQ_FIRST(&kqueue->active)) != NULL &&
           knote->reported_in != kqueue->scan_count) {
        deactivate(kqueue, knote);
        if (knote == &kqueue->user_knote) {
            events[count] = knote->registered;
        }
        else {
            int fd = (int)knote->registered.ident;
            if (find_in_epoll(number_of(kqueue), fd) != 0) {
                forget_fd(kqueue, &kqueue->watched_fds[fd]);
                continue;
            }
            if (!evaluate(knote, &events[count])) {
                continue;
            }
        }
        count++;
        if ((knote->registered.flags & EV_CLEAR) == 0) {
            knote->reported_in = kqueue->scan_count;
            activate(kqueue, knote);
        }
    }
    return count;
}

// Puts the knotes that [news] is about into the queue.
static void
take_news(struct kqueue *kqueue, const struct epoll_event *news)
{
    static const uint32_t bits[KNOTES_PER_FD] = {
        [READ_KNOTE] = EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR,
        [WRITE_KNOTE] = EPOLLOUT | EPOLLHUP | EPOLLERR,
        [EXCEPT_KNOTE] = EPOLLPRI,
    };
    uint32_t generation = (uint32_t)(news->data.u64 >> 32);
    struct watched_fd *watched = &kqueue->watched_fds[(uint32_t)news->data.u64];
    if (generation == NO_NEWS || generation != watched->generation) {
        return;
    }
    for (int i = 0; i < KNOTES_PER_FD; i++) {
        if (news->events & bits[i]) {
            activate(kqueue, &watched->knotes[i]);
        }
    }
}

// Fetches all the news there are; [timeout_ms] is for the first of them. 0 or an errno.
// The lock is held before and after, but not in between.
static int
fetch_news(struct kqueue *kqueue, int timeout_ms)
{
    struct epoll_event fetched[MAX_FETCHED_EVENTS];
    int count;
    do {
        kqueue->waiting_count++;
        pthread_mutex_unlock(&lock);
        count = epoll_wait(number_of(kqueue), fetched, MAX_FETCHED_EVENTS, timeout_ms);
        int error = errno;
        pthread_mutex_lock(&lock);
        kqueue->waiting_count--;
        if (count < 0) {
            return error == EINVAL ? EBADF : error;
        }
        for (int i = 0; i < count; i++) {
            take_news(kqueue, &fetched[i]);
        }
        timeout_ms = 0;
    } while (count == MAX_FETCHED_EVENTS);
    if (atomic_exchange(&kqueue->is_triggered, false)) {
        activate(kqueue, &kqueue->user_knote);
    }
    return 0;
}

static int64_t
read_clock_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

// The wait of kevent(). A count, or -1 with errno.
static int
wait_for_events(struct kqueue *kqueue, struct kevent *events, int capacity,
                const struct timespec *timeout)
{
    int64_t deadline_ns = 0;
    if (timeout != NULL) {
        if (timeout->tv_sec < 0 || timeout->tv_sec > MAX_TIMEOUT_S ||
            timeout->tv_nsec < 0 || timeout->tv_nsec >= NS_PER_S) {
            errno = EINVAL;
            return -1;
        }
        deadline_ns =
            read_clock_ns() + (int64_t)timeout->tv_sec * NS_PER_S + timeout->tv_nsec;
    }
    int count;
    int error;
    // News first, even if there are active knotes: they may be of the same event.
    int64_t left_ms = 0;
    pthread_mutex_lock(&lock);
    do {
        error = fetch_news(kqueue, left_ms > INT_MAX ? INT_MAX : (int)left_ms);
        count = error == 0 ? report_active(kqueue, events, capacity) : -1;
        int64_t left_ns = deadline_ns - read_clock_ns();
        left_ms = timeout == NULL ? -1 : left_ns > 0 ? (left_ns - 1) / NS_PER_MS + 1 : 0;
    } while (count == 0 && left_ms != 0);
    pthread_mutex_unlock(&lock);
    if (count < 0) {
        errno = error;
    }
    return count;
}

// The change of a knote that is there, or, with EV_ADD, may be made. 0 or an errno.
static int
change_knote(struct kqueue *kqueue, struct knote *knote, const struct kevent *change)
{
    if (!knote->is_added && (change->flags & EV_ADD) == 0) {
        return ENOENT;
    }
    if (change->flags & EV_DELETE) {
        deactivate(kqueue, knote);
        knote->is_added = false;
        return 0;
    }
    if (!knote->is_added) {
        knote->is_added = true;
        knote->registered = *change;
        knote->registered.flags &= EV_CLEAR;
        knote->registered.fflags = 0;
        knote->registered.data = 1;
    }
    knote->registered.udata = change->udata; // fact 5
    return 0;
}

static int
change_user_knote(struct kqueue *kqueue, const struct kevent *change)
{
    struct knote *knote = &kqueue->user_knote;
    int error = 0;
    if (change->flags & (EV_ADD | EV_DELETE | EV_ENABLE)) {
        pthread_mutex_lock(&lock);
        error = change_knote(kqueue, knote, change);
        atomic_store(&kqueue->has_user_knote, knote->is_added);
        pthread_mutex_unlock(&lock);
    }
    if (error != 0 || (change->fflags & NOTE_TRIGGER) == 0) {
        return error;
    }
    // From here on this is what a signal handler does: no lock.
    if (!atomic_load(&kqueue->has_user_knote)) {
        return ENOENT;
    }
    // Before the call: the thread that it wakes has to see it.
    atomic_store(&kqueue->is_triggered, true);
    return ring(number_of(kqueue));
}

static int
change_fd(struct kqueue *kqueue, const struct kevent *change, int knote_index)
{
    static const uint32_t everything =
        EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET;
    int kq = number_of(kqueue);
    int fd = (int)change->ident;
    if (change->ident >= MAX_DESCRIPTORS) {
        return EBADF;
    }
    struct watched_fd *watched = &kqueue->watched_fds[fd];
    int error;
    if (change->flags & EV_ADD) {
        uint32_t generation = kqueue->last_generation + 1;
        error = add_to_epoll(kq, fd, everything, generation);
        if (error == 0) {
            forget_fd(kqueue, watched);
            watched->generation = kqueue->last_generation = generation;
        }
        error = error == EEXIST ? 0 : error;
    }
    else {
        error = find_in_epoll(kq, fd);
    }
    if (error != 0) {
        forget_fd(kqueue, watched);
        return error;
    }
    struct knote *knote = &watched->knotes[knote_index];
    error = change_knote(kqueue, knote, change);
    struct kevent unused;
    if (knote->is_added && evaluate(knote, &unused)) {
        activate(kqueue, knote);
        if (kqueue->waiting_count > 0) {
            (void)ring(kq);
        }
    }
    if (!watched->knotes[READ_KNOTE].is_added && !watched->knotes[WRITE_KNOTE].is_added &&
        !watched->knotes[EXCEPT_KNOTE].is_added) {
        remove_from_epoll(kq, fd);
        watched->generation = NO_NEWS;
    }
    return error;
}

// Fact 10. 0 or an errno.
static int
add_fd(struct kqueue *kqueue, const struct kevent *change, int knote_index)
{
    int fd = (int)change->ident;
    struct stat status;
    if (fstat(fd, &status) == 0) {
        if (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode)) {
            return 0;
        }
        struct pollfd state = {.fd = fd, .events = POLLOUT};
        if (knote_index == WRITE_KNOTE && S_ISFIFO(status.st_mode) &&
            poll(&state, 1, 0) > 0 && (state.revents & POLLERR)) {
            return EPIPE;
        }
    }
    return change_fd(kqueue, change, knote_index);
}

static int
change_filter(struct kqueue *kqueue, const struct kevent *change, int knote_index)
{
    return (change->flags & EV_ADD ? add_fd : change_fd)(kqueue, change, knote_index);
}

// 0 or an errno.
static int
apply_change(struct kqueue *kqueue, const struct kevent *change)
{
    switch (change->filter) {
    case EVFILT_USER:
        return change_user_knote(kqueue, change);
    case EVFILT_READ:
        return change_filter(kqueue, change, READ_KNOTE);
    case EVFILT_WRITE:
        return change_filter(kqueue, change, WRITE_KNOTE);
    case EVFILT_EXCEPT:
        return change->fflags == NOTE_OOB ? change_filter(kqueue, change, EXCEPT_KNOTE)
                                          : EINVAL;
    default:
        return EINVAL;
    }
}

int
kevent(int kq, const struct kevent *changes, int change_count, struct kevent *events,
       int event_count, const struct timespec *timeout)
{
    if (kq < 0 || kq >= MAX_DESCRIPTORS || !atomic_load(&kqueues[kq].is_open)) {
        errno = EBADF;
        return -1;
    }
    int answer_count = 0;
    for (int i = 0; i < change_count; i++) {
        int error = apply_change(&kqueues[kq], &changes[i]);
        if (error == 0 && (changes[i].flags & EV_RECEIPT) == 0) {
            continue;
        }
        if (answer_count == event_count) {
            errno = error;
            return error == 0 ? answer_count : -1;
        }
        struct kevent answer = changes[i]; // the lists may be one and the same
        answer.flags = EV_ERROR;
        answer.data = error;
        events[answer_count++] = answer;
    }
    if (answer_count > 0 || event_count == 0) {
        return answer_count;
    }
    return wait_for_events(&kqueues[kq], events, event_count, timeout);
}

// Empties the record of a number that has become a kqueue. 0 or an errno.
static int
reset_record(struct kqueue *kqueue)
{
    size_t size = MAX_DESCRIPTORS * sizeof(struct watched_fd);
    if (kqueue->watched_fds == NULL) {
        // Not by malloc: tests count what is allocated, and fact 1 forbids to free it.
        void *table = mmap(NULL, size, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (table == MAP_FAILED) {
            return ENOMEM;
        }
        kqueue->watched_fds = table;
    }
    else if (madvise(kqueue->watched_fds, size, MADV_DONTNEED) < 0) {
        return errno;
    }
    TAILQ_INIT(&kqueue->active);
    memset(&kqueue->user_knote, 0, sizeof(kqueue->user_knote));
    kqueue->last_generation = NO_NEWS;
    kqueue->scan_count = 0;
    kqueue->waiting_count = 0;
    atomic_store(&kqueue->has_user_knote, false);
    atomic_store(&kqueue->is_triggered, false);
    atomic_store(&kqueue->is_open, true);
    return 0;
}

int
kqueue(void)
{
    int kq = epoll_create1(EPOLL_CLOEXEC);
    if (kq < 0) {
        return -1;
    }
    int error = kq < MAX_DESCRIPTORS ? 0 : EMFILE;
    if (error == 0) {
        error = add_to_epoll(kq, always_ready_fd, EPOLLONESHOT, NO_NEWS);
    }
    if (error == 0) {
        pthread_mutex_lock(&lock);
        error = reset_record(&kqueues[kq]);
        highest_kq = kq > highest_kq ? kq : highest_kq;
        pthread_mutex_unlock(&lock);
    }
    if (error != 0) {
        (void)close(kq);
        errno = error;
        return -1;
    }
    return kq;
}

// Fact 9. Other threads are gone, maybe in the middle of a change; nothing of what they
// left is read again.
static void
forget_after_fork(void)
{
    lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    for (int kq = 0; kq <= highest_kq; kq++) {
        // The number may have become another file's: then it is not ours to close.
        if (atomic_exchange(&kqueues[kq].is_open, false) &&
            find_in_epoll(kq, always_ready_fd) == 0) {
            (void)close(kq);
        }
    }
}

// When the program is loaded, so that no test takes this descriptor for a leak.
__attribute__((constructor)) static void
prepare(void)
{
    always_ready_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    if (always_ready_fd < 0 || pthread_atfork(NULL, NULL, forget_after_fork) != 0) {
        abort();
    }
}
