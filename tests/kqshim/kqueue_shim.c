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
// 1. A kqueue is closed by close(), and nobody can see that from here. So its number is an
//    epoll descriptor, and there must be no other one to close: what else it needs (fact
//    3) is borrowed from a pool, and goes back once kqueue() finds the borrower closed.
// 2. An EVFILT_USER event needs something that makes epoll report. That is one eventfd
//    for the whole process, readable for ever and never read: each kqueue has it
//    disarmed (EPOLLONESHOT), and arming it is the wake-up. This is one system call and
//    one atomic flag, without a lock, and so can be done in a signal handler.
// 3. READ and WRITE are knotes of their own, and what happens to one is no news of the
//    other. An entry of epoll has both, and tells of both whenever one is new. So there
//    are two epolls, and writing is watched in the inner one. Each entry is for good:
//    changing it would report anew, and hide that an engine forgot to ask.
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

#include "kqueue_shim.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

// More kqueues than any test has open at once.
#define POOL_SIZE 64
#define POOL_NUMBERS_END 768

// Of the pool that a process gets which may not have many descriptors.
#define SMALL_POOL_SIZE 2

// By number. What is never touched takes no memory.
static struct kqueue kqueues[MAX_DESCRIPTORS];
static int highest_kq = -1;

// Inner epolls, and who has them: the number of a kqueue, or -1.
static struct {
    int epoll;
    int owner;
} pool[POOL_SIZE];

// Of the newest entry in any epoll: an inner one that changes hands may still hold some.
static uint32_t last_generation = NO_NEWS;

pthread_mutex_t kqshim_lock = PTHREAD_MUTEX_INITIALIZER;

static int always_ready_fd = -1; // fact 2

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
        pthread_mutex_lock(&kqshim_lock);
        error = change_knote(kqueue, knote, change);
        atomic_store(&kqueue->has_user_knote, knote->is_added);
        pthread_mutex_unlock(&kqshim_lock);
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
    return ring(kqueue->number);
}

static int
change_fd(struct kqueue *kqueue, const struct kevent *change, int knote_index)
{
    static const uint32_t everything[] = {
        [IN_SIDE] = EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET,
        [OUT_SIDE] = EPOLLOUT | EPOLLET,
    };
    int fd = (int)change->ident;
    if (change->ident >= MAX_DESCRIPTORS) {
        return EBADF;
    }
    enum side side = side_of(knote_index);
    int epoll = epoll_of(kqueue, side);
    struct watched_fd *watched = &kqueue->watched_fds[fd];
    int error;
    if (change->flags & EV_ADD) {
        uint32_t generation = last_generation + 1;
        error = kqshim_add_to_epoll(epoll, fd, everything[side], generation);
        if (error == 0) {
            kqshim_forget_side(kqueue, watched, side);
            watched->generations[side] = last_generation = generation;
            if (fd >= kqueue->watched_count) {
                kqueue->watched_count = fd + 1;
            }
        }
        error = error == EEXIST ? 0 : error;
    }
    else {
        error = kqshim_find_in_epoll(epoll, fd);
    }
    if (error != 0) {
        kqshim_forget_side(kqueue, watched, side);
        return error;
    }
    struct knote *knote = &watched->knotes[knote_index];
    error = change_knote(kqueue, knote, change);
    struct kevent unused;
    if (knote->is_added && kqshim_evaluate(knote, &unused)) {
        activate(kqueue, knote);
        if (kqueue->waiting_count > 0) {
            (void)ring(kqueue->number);
        }
    }
    bool is_watched = side == OUT_SIDE ? watched->knotes[WRITE_KNOTE].is_added
                                       : watched->knotes[READ_KNOTE].is_added ||
                                             watched->knotes[EXCEPT_KNOTE].is_added;
    if (!is_watched) {
        kqshim_remove_from_epoll(epoll, fd);
        watched->generations[side] = NO_NEWS;
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
    // Another thread may be in a wait, and look at what it has active.
    pthread_mutex_lock(&kqshim_lock);
    int error =
        (change->flags & EV_ADD ? add_fd : change_fd)(kqueue, change, knote_index);
    pthread_mutex_unlock(&kqshim_lock);
    return error;
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
    return kqshim_wait(&kqueues[kq], events, event_count, timeout);
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
    kqueue->watched_count = 0;
    kqueue->scan_count = 0;
    kqueue->waiting_count = 0;
    atomic_store(&kqueue->has_user_knote, false);
    atomic_store(&kqueue->is_triggered, false);
    return 0;
}

// Whether a number that was a kqueue's is so still.
static bool
is_kqueue(int kq)
{
    return kqshim_find_in_epoll(kq, always_ready_fd) == 0;
}

// An empty inner epoll for [kq]; -1 if there is none.
static int
borrow_epoll(int kq)
{
    for (int i = 0; i < POOL_SIZE; i++) {
        int owner = pool[i].owner;
        if (owner >= 0 && (owner == kq || !is_kqueue(owner))) {
            for (int fd = 0; fd < kqueues[owner].watched_count; fd++) {
                if (kqueues[owner].watched_fds[fd].generations[OUT_SIDE] != NO_NEWS) {
                    kqshim_remove_from_epoll(pool[i].epoll, fd);
                }
            }
            pool[i].owner = -1;
        }
    }
    for (int i = 0; i < POOL_SIZE; i++) {
        if (pool[i].owner < 0 && pool[i].epoll >= 0) {
            pool[i].owner = kq;
            return pool[i].epoll;
        }
    }
    return -1;
}

// Makes the number of an epoll a kqueue. 0 or an errno.
static int
open_record(int kq)
{
    if (kq >= MAX_DESCRIPTORS) {
        return EMFILE;
    }
    int out_epoll = borrow_epoll(kq);
    if (out_epoll < 0) {
        return ENFILE;
    }
    int error = reset_record(&kqueues[kq]);
    if (error != 0) {
        return error;
    }
    kqueues[kq].number = kq;
    kqueues[kq].out_epoll = out_epoll;
    highest_kq = kq > highest_kq ? kq : highest_kq;
    struct epoll_event inner = {.events = EPOLLIN, .data.u64 = NO_NEWS};
    if (epoll_ctl(kq, EPOLL_CTL_ADD, out_epoll, &inner) < 0) {
        return errno;
    }
    error = kqshim_add_to_epoll(kq, always_ready_fd, EPOLLONESHOT, NO_NEWS);
    atomic_store(&kqueues[kq].is_open, error == 0);
    return error;
}

int
kqueue(void)
{
    int kq = epoll_create1(EPOLL_CLOEXEC);
    if (kq < 0) {
        return -1;
    }
    pthread_mutex_lock(&kqshim_lock);
    int error = open_record(kq);
    pthread_mutex_unlock(&kqshim_lock);
    if (error != 0) {
        (void)close(kq);
        errno = error;
        return -1;
    }
    return kq;
}

// Fills the pool, or makes it anew under the same numbers: high ones, out of the way of
// tests that look which is the lowest free one.
static void
fill_pool(void)
{
    struct rlimit limit = {.rlim_cur = POOL_NUMBERS_END};
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    int end = limit.rlim_cur < POOL_NUMBERS_END ? (int)limit.rlim_cur : POOL_NUMBERS_END;
    int size = end < POOL_NUMBERS_END ? SMALL_POOL_SIZE : POOL_SIZE;
    for (int i = size; i < POOL_SIZE; i++) {
        pool[i].epoll = pool[i].owner = -1;
    }
    for (int i = 0; i < size; i++) {
        int epoll = epoll_create1(EPOLL_CLOEXEC);
        int number = pool[i].epoll;
        pool[i].owner = -1;
        pool[i].epoll = number > 0 ? dup3(epoll, number, O_CLOEXEC)
                                   : fcntl(epoll, F_DUPFD_CLOEXEC, end - size);
        (void)close(epoll);
    }
}

// Fact 9. Other threads are gone, maybe in the middle of a change; nothing of what they
// left is read again.
static void
forget_after_fork(void)
{
    kqshim_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    for (int kq = 0; kq <= highest_kq; kq++) {
        // The number may have become another file's: then it is not ours to close.
        if (atomic_exchange(&kqueues[kq].is_open, false) && is_kqueue(kq)) {
            (void)close(kq);
        }
    }
    fill_pool();
}

// When the program is loaded, so that no test takes this descriptor for a leak.
__attribute__((constructor)) static void
prepare(void)
{
    always_ready_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    if (always_ready_fd < 0 || pthread_atfork(NULL, NULL, forget_after_fork) != 0) {
        abort();
    }
    fill_pool();
}
