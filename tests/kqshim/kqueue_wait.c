// kqueue_wait.c: the waiting half of the stand-in for kqueue: news, the queue of active
// knotes and what is reported of them. See kqueue_shim.c, whose facts are meant here too.

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include "kqueue_shim.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define MAX_FETCHED_EVENTS 64
#define MAX_TIMEOUT_S 100000000
#define NS_PER_S INT64_C(1000000000)
#define NS_PER_MS 1000000

int
kqshim_add_to_epoll(int kq, int fd, uint32_t events, uint32_t generation)
{
    struct epoll_event event = {
        .events = events,
        .data.u64 = (uint64_t)generation << 32 | (uint32_t)fd,
    };
    return epoll_ctl(kq, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : errno;
}

void
kqshim_remove_from_epoll(int kq, int fd)
{
    struct epoll_event unused = {.events = 0};
    (void)epoll_ctl(kq, EPOLL_CTL_DEL, fd, &unused);
}

int
kqshim_find_in_epoll(int kq, int fd)
{
    int error = kqshim_add_to_epoll(kq, fd, 0, NO_NEWS);
    if (error == EEXIST) {
        return 0;
    }
    if (error == 0) {
        kqshim_remove_from_epoll(kq, fd);
    }
    return error == EBADF ? EBADF : ENOENT;
}

void
kqshim_forget_side(struct kqueue *kqueue, struct watched_fd *watched, enum side side)
{
    for (int i = 0; i < KNOTES_PER_FD; i++) {
        if (side_of(i) == side) {
            deactivate(kqueue, &watched->knotes[i]);
            watched->knotes[i].is_added = false;
        }
    }
    watched->generations[side] = NO_NEWS;
}

bool
kqshim_evaluate(const struct knote *knote, struct kevent *event)
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
            enum side side =
                knote->registered.filter == EVFILT_WRITE ? OUT_SIDE : IN_SIDE;
            if (kqshim_find_in_epoll(epoll_of(kqueue, side), fd) != 0) {
                kqshim_forget_side(kqueue, &kqueue->watched_fds[fd], side);
                continue;
            }
            if (!kqshim_evaluate(knote, &events[count])) {
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

// Puts the knotes that [news] of a side is about into the queue.
static void
take_news(struct kqueue *kqueue, enum side side, const struct epoll_event *news)
{
    static const uint32_t bits[KNOTES_PER_FD] = {
        [READ_KNOTE] = EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR,
        [EXCEPT_KNOTE] = EPOLLPRI,
        [WRITE_KNOTE] = EPOLLOUT | EPOLLHUP | EPOLLERR,
    };
    uint32_t generation = (uint32_t)(news->data.u64 >> 32);
    struct watched_fd *watched = &kqueue->watched_fds[(uint32_t)news->data.u64];
    if (generation == NO_NEWS || generation != watched->generations[side]) {
        return;
    }
    for (int i = 0; i < KNOTES_PER_FD; i++) {
        if (side_of(i) == side && (news->events & bits[i])) {
            activate(kqueue, &watched->knotes[i]);
        }
    }
}

// Fetches all the news of a side; [timeout_ms] is for the first of them. 0 or an errno.
// The lock is held before and after, but not in between.
static int
fetch_side(struct kqueue *kqueue, enum side side, int timeout_ms)
{
    struct epoll_event fetched[MAX_FETCHED_EVENTS];
    int epoll = epoll_of(kqueue, side);
    int count;
    do {
        kqueue->waiting_count++;
        pthread_mutex_unlock(&kqshim_lock);
        count = epoll_wait(epoll, fetched, MAX_FETCHED_EVENTS, timeout_ms);
        int error = errno;
        pthread_mutex_lock(&kqshim_lock);
        kqueue->waiting_count--;
        if (count < 0) {
            return error == EINVAL ? EBADF : error;
        }
        for (int i = 0; i < count; i++) {
            take_news(kqueue, side, &fetched[i]);
        }
        timeout_ms = 0;
    } while (count == MAX_FETCHED_EVENTS);
    return 0;
}

static int
fetch_news(struct kqueue *kqueue, int timeout_ms)
{
    int error = fetch_side(kqueue, IN_SIDE, timeout_ms);
    if (error == 0) {
        error = fetch_side(kqueue, OUT_SIDE, 0);
    }
    if (atomic_exchange(&kqueue->is_triggered, false)) {
        activate(kqueue, &kqueue->user_knote);
    }
    return error;
}

static int64_t
read_clock_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

int
kqshim_wait(struct kqueue *kqueue, struct kevent *events, int capacity,
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
    pthread_mutex_lock(&kqshim_lock);
    do {
        error = fetch_news(kqueue, left_ms > INT_MAX ? INT_MAX : (int)left_ms);
        count = error == 0 ? report_active(kqueue, events, capacity) : -1;
        int64_t left_ns = deadline_ns - read_clock_ns();
        left_ms = timeout == NULL ? -1 : left_ns > 0 ? (left_ns - 1) / NS_PER_MS + 1 : 0;
    } while (count == 0 && left_ms != 0);
    pthread_mutex_unlock(&kqshim_lock);
    if (count < 0) {
        errno = error;
    }
    return count;
}
