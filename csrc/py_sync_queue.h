// py_sync_queue.h: what is behind Queue, LifoQueue and SimpleQueue.
//
// An item that comes while somebody waits for one is promised to who waits longest: it lies
// in the queue until that one runs, but counts for nobody else any more. A place that becomes
// free is promised likewise. So nobody overtakes, and if who has a promise gets an exception
// instead, nothing was taken and the promise goes to the next one.

#ifndef CORONET_PY_SYNC_QUEUE_H
#define CORONET_PY_SYNC_QUEUE_H

#include "py_sync.h"

// Who waits to get, or to put.
struct queue_line {
    struct list_node waiters; // by link, the one waiting longest first
    Py_ssize_t promised;      // to those woken who have not run since
};

typedef struct {
    PyObject_HEAD
    struct module_state *state; // borrowed
    PyObject *weak_references;

    // The items, unless a subclass keeps them: a ring.
    PyObject **slots;  // owned, and so is what is in them
    size_t slot_count; // a power of 2, or 0
    size_t first;      // where the oldest item is
    size_t count;

    Py_ssize_t maxsize;    // 0 or less = no limit
    Py_ssize_t unfinished; // items put whose task_done() has not come yet
    struct queue_line getters;
    struct queue_line putters;
    struct list_node joiners; // by link
    unsigned long fork_count; // the module's, when the promises were made
    bool takes_last;          // get() takes the item put last
    bool is_shutdown;
    // Held while methods of a subclass keep the items: owned, NULL = the ring has them.
    LockObject *mutex;
} QueueObject;

// Puts [item], waiting for room at most [timeout_ns] (0: does not wait, -1: no limit). 0, or
// -1 with an exception: queue.Full, ShutDown, what a subclass raises.
int queue_put(QueueObject *queue, PyObject *item, int64_t timeout_ns);

// Takes an item likewise. A new reference, NULL with an exception: queue.Empty, ShutDown.
PyObject *queue_get(QueueObject *queue, int64_t timeout_ns);

// Waits until nothing is unfinished. 0, or -1 with an exception.
int queue_join(QueueObject *queue);

// One item less is unfinished. 0, or -1 with a ValueError.
int queue_finish_one(QueueObject *queue);

// No more may be put; with [is_immediate] what is there is dropped. 0, or -1 with an exception.
int queue_shut_down(QueueObject *queue, bool is_immediate);

// How many items get() could take at once. -1 with an exception.
Py_ssize_t queue_size(QueueObject *queue);

// 1 if put() would have to wait, 0 if not, -1 with an exception.
int queue_is_full(QueueObject *queue);

void queue_set_maxsize(QueueObject *queue, Py_ssize_t maxsize);

// The ring, also for subclasses that keep items in their own way. 0, or -1 with MemoryError;
// the next item behind the first [skipped], a new reference, NULL with an IndexError.
int queue_store(QueueObject *queue, PyObject *item);
PyObject *queue_take(QueueObject *queue, size_t skipped);

// Drops what is in the ring.
void queue_clear(QueueObject *queue);

#endif
