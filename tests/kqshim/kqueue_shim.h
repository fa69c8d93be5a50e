// kqueue_shim.h: what the two files of the stand-in share. See kqueue_shim.c.

#ifndef CORONET_TESTS_KQUEUE_SHIM_H
#define CORONET_TESTS_KQUEUE_SHIM_H

#include "sys/event.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/queue.h>

#define MAX_DESCRIPTORS 65536

// Nobody's generation, so nobody's news.
#define NO_NEWS 0

enum { READ_KNOTE, EXCEPT_KNOTE, WRITE_KNOTE, KNOTES_PER_FD };

struct knote {
    TAILQ_ENTRY(knote) link;
    struct kevent registered;  // ident, filter, flags and udata as they were given
    unsigned long reported_in; // which scan of the queue has reported it last
    bool is_added;
    bool is_queued;
};

// Fact 3: two entries in epoll, the second of which is for WRITE.
enum side { IN_SIDE, OUT_SIDE };

struct watched_fd {
    uint32_t generations[2]; // of either side's entry; NO_NEWS if there is none
    struct knote knotes[KNOTES_PER_FD];
};

TAILQ_HEAD(knote_queue, knote);

struct kqueue {
    int number; // the outer epoll
    atomic_bool is_open;
    atomic_bool has_user_knote; // these two are what a signal handler touches
    atomic_bool is_triggered;   // not in the queue yet
    struct knote user_knote;
    struct knote_queue active;      // owned by the knotes' tables
    struct watched_fd *watched_fds; // MAX_DESCRIPTORS, mapped at first use and kept
    int out_epoll;                  // the inner one, borrowed from the pool
    int watched_count;              // the highest number that was ever watched, plus 1
    unsigned long scan_count;
    int waiting_count; // threads inside of epoll_wait
};

// Over all of a kqueue but its atomic fields; never held while waiting.
extern pthread_mutex_t kqshim_lock;

static inline int
epoll_of(const struct kqueue *kqueue, enum side side)
{
    return side == OUT_SIDE ? kqueue->out_epoll : kqueue->number;
}

static inline enum side
side_of(int knote_index)
{
    return knote_index == WRITE_KNOTE ? OUT_SIDE : IN_SIDE;
}

static inline void
activate(struct kqueue *kqueue, struct knote *knote)
{
    if (knote->is_added && !knote->is_queued) {
        knote->is_queued = true;
        TAILQ_INSERT_TAIL(&kqueue->active, knote, link);
    }
}

static inline void
deactivate(struct kqueue *kqueue, struct knote *knote)
{
    if (knote->is_queued) {
        knote->is_queued = false;
        TAILQ_REMOVE(&kqueue->active, knote, link);
    }
}

// Registers a descriptor for [events] if it is not there. 0 or an errno; EEXIST: its very
// file is there already (fact 4).
int kqshim_add_to_epoll(int epoll, int fd, uint32_t events, uint32_t generation);

void kqshim_remove_from_epoll(int epoll, int fd);

// Whether [fd] still means what was registered in [epoll]. 0 or an errno.
int kqshim_find_in_epoll(int epoll, int fd);

// The number means another file by now, or none.
void kqshim_forget_side(struct kqueue *kqueue, struct watched_fd *watched,
                        enum side side);

// What is the case with a descriptor's knote. False: it is not ready.
bool kqshim_evaluate(const struct knote *knote, struct kevent *event);

// The wait of kevent(). A count, or -1 with errno.
int kqshim_wait(struct kqueue *kqueue, struct kevent *events, int capacity,
                const struct timespec *timeout);

#endif
