// py_sync.h: locks, events, semaphores and queues.
//
// They have the names, meanings and exceptions of threading and queue, and serve the tasks of
// all hubs and all threads alike: the GIL guards their state, and py_parking.c parks and wakes.
// Rules that hold for all of them:
//   1. First come, first served. What is free goes to who waits longest; who comes meanwhile
//      stands in line.
//   2. What is given to somebody who then gets an exception instead goes to the next one.
//   3. In a forked child those who were left behind wait for nothing any more. What they held
//      stays held.

#ifndef CORONET_PY_SYNC_H
#define CORONET_PY_SYNC_H

#include "py_hub.h"

// --- py_sync.c ----------------------------------------------------------------------

// For calls that may wait: counts one that did not, as hub_count_operation() does; free in a
// thread without a hub. 0, or -1 with an exception. Before the operation, for it may switch.
static inline int
sync_count_operation(void)
{
    HubObject *hub = hub_peek();
    return hub == NULL ? 0 : hub_count_operation(hub);
}

// Seconds as threading takes them: as convert_timeout(), but a negative number is 0.
int sync_convert_timeout(PyObject *seconds, int64_t *timeout_ns);

// The arguments of acquire(blocking=True, timeout=None) of what has no negative timeouts:
// 0 for "do not wait". 0, or -1 with an exception.
int sync_convert_blocking(PyObject *blocking, PyObject *timeout, int64_t *timeout_ns);

// "module.Class" of an object, a new reference; NULL with an exception.
PyObject *sync_type_name(PyObject *object);

// As add_type(), with the module's type called [base] as the base.
PyTypeObject *sync_add_derived_type(PyObject *module, PyType_Spec *spec,
                                    const char *base);

// Makes the types of these files and adds them to the module. 0, or -1 with an exception.
int sync_add_types(PyObject *module);

// --- py_sync_lock.c -----------------------------------------------------------------

typedef struct LockObject LockObject;

// A new Lock that is free, NULL with an exception.
LockObject *lock_new(struct module_state *state);

// Takes the lock, or waits for it at most [timeout_ns] (0: does not wait, -1: no limit). 1 if
// the caller has it now, 0 if not, -1 with an exception. May switch.
int lock_acquire(LockObject *lock, int64_t timeout_ns);

// Gives the lock to who waits longest, or frees it; it is held.
void lock_release(LockObject *lock);

// True if the caller has it.
bool lock_is_mine(LockObject *lock);

// Frees it, whoever held it: in a forked child.
void lock_reset(LockObject *lock);

// Types, one function each: by add_type().
PyTypeObject *recursive_lock_type_new(PyObject *module);

// --- py_sync_event.c, py_sync_semaphore.c, py_sync_queue_type.c -----------------------

PyTypeObject *event_type_new(PyObject *module);
PyTypeObject *semaphore_type_new(PyObject *module);
PyTypeObject *simple_queue_type_new(PyObject *module);

// Types derived from what the functions above have made.
PyTypeObject *bounded_semaphore_type_new(PyObject *module);
PyTypeObject *lifo_queue_type_new(PyObject *module);

#endif
