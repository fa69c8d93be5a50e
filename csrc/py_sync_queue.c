// py_sync_queue.c: putting and getting; see py_sync_queue.h.
//
// A subclass may keep the items in another way, by _put(), _get() and _qsize(): Python code,
// in which other threads run. So these are called with a mutex held, and then nothing but
// them changes the queue. Without them the GIL is the mutex: nothing here runs Python code
// between looking and doing.

#include "py_sync_queue.h"

#include "hard_mode.h"

#include "py_convert.h"
#include "py_task.h"

#define FIRST_SLOT_COUNT ((size_t)HARD_OR_USUAL(1, 8))

// --- The ring -----------------------------------------------------------------------------

// 0, or -1 without an exception.
static int
resize_ring(QueueObject *queue, size_t slot_count)
{
    PyObject **slots = PyMem_New(PyObject *, slot_count);
    if (slots == NULL) {
        return -1;
    }
    for (size_t i = 0; i < queue->count; i++) {
        slots[i] = queue->slots[(queue->first + i) & (queue->slot_count - 1)];
    }
    PyMem_Free(queue->slots);
    queue->slots = slots;
    queue->slot_count = slot_count;
    queue->first = 0;
    return 0;
}

int
queue_store(QueueObject *queue, PyObject *item)
{
    if (queue->count == queue->slot_count &&
        resize_ring(queue, queue->count == 0 ? FIRST_SLOT_COUNT : queue->count * 2) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    queue->slots[(queue->first + queue->count) & (queue->slot_count - 1)] =
        Py_NewRef(item);
    queue->count++;
    return 0;
}

PyObject *
queue_take(QueueObject *queue, size_t skipped)
{
    if (queue->count == 0) {
        PyErr_SetString(PyExc_IndexError, "the queue is empty");
        return NULL;
    }
    size_t last_slot = queue->slot_count - 1; // a mask, too
    queue->count--;
    PyObject *item;
    if (queue->takes_last) {
        item = queue->slots[(queue->first + queue->count) & last_slot];
    }
    else {
        item = queue->slots[(queue->first + skipped) & last_slot];
        for (; skipped > 0; skipped--) {
            queue->slots[(queue->first + skipped) & last_slot] =
                queue->slots[(queue->first + skipped - 1) & last_slot];
        }
        queue->first = (queue->first + 1) & last_slot;
    }
    if (queue->slot_count > FIRST_SLOT_COUNT && queue->count < queue->slot_count / 4) {
        (void)resize_ring(queue,
                          queue->slot_count / 2); // without memory it stays as it is
    }
    return item;
}

void
queue_clear(QueueObject *queue)
{
    PyObject **slots = queue->slots;
    size_t count = queue->count;
    size_t first = queue->first;
    size_t slot_count = queue->slot_count;
    queue->slots = NULL;
    queue->slot_count = queue->first = queue->count = 0;
    for (size_t i = 0; i < count; i++) {
        Py_DECREF(slots[(first + i) & (slot_count - 1)]);
    }
    PyMem_Free(slots);
}

// --- Where the items are --------------------------------------------------------------------

// Calls a method of a subclass; [argument] may be NULL.
static PyObject *
call_hook(QueueObject *queue, const char *name, PyObject *argument)
{
    PyObject *method = get_attribute((PyObject *)queue, name);
    PyObject *result =
        method == NULL ? NULL : PyObject_CallFunctionObjArgs(method, argument, NULL);
    Py_XDECREF(method);
    return result;
}

static int
store_item(QueueObject *queue, PyObject *item)
{
    if (queue->mutex == NULL) {
        return queue_store(queue, item);
    }
    PyObject *result = call_hook(queue, "_put", item);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

// Of the ring's items the first [skipped] are for others.
static PyObject *
take_item(QueueObject *queue, Py_ssize_t skipped)
{
    return queue->mutex == NULL ? queue_take(queue, (size_t)skipped)
                                : call_hook(queue, "_get", NULL);
}

static Py_ssize_t
count_items(QueueObject *queue)
{
    if (queue->mutex == NULL) {
        return (Py_ssize_t)queue->count;
    }
    PyObject *size = call_hook(queue, "_qsize", NULL);
    Py_ssize_t count = size == NULL ? -1 : PyLong_AsSsize_t(size);
    Py_XDECREF(size);
    if (count < 0 && !PyErr_Occurred()) {
        PyErr_SetString(PyExc_ValueError, "_qsize() must not be negative");
    }
    return count;
}

Py_ssize_t
queue_size(QueueObject *queue)
{
    Py_ssize_t count = count_items(queue);
    if (count < 0) {
        return -1;
    }
    return count > queue->getters.promised ? count - queue->getters.promised : 0;
}

// How many more than those with a promise could get an item, or put one. -1 with an exception.
static Py_ssize_t
count_free(QueueObject *queue, const struct queue_line *line)
{
    if (line == &queue->getters) {
        return queue_size(queue);
    }
    if (queue->maxsize <= 0) {
        return PY_SSIZE_T_MAX;
    }
    Py_ssize_t size = queue_size(queue);
    if (size < 0) {
        return -1;
    }
    Py_ssize_t taken = size + line->promised;
    return queue->maxsize > taken ? queue->maxsize - taken : 0;
}

int
queue_is_full(QueueObject *queue)
{
    Py_ssize_t count = count_free(queue, &queue->putters);
    return count < 0 ? -1 : count == 0;
}

// --- Operations -----------------------------------------------------------------------------

// In a forked child: who was left behind has no promise any more, and nobody is in a method.
static void
forget_left_behind(QueueObject *queue)
{
    queue->fork_count = queue->state->fork_count;
    queue->getters.promised = queue->putters.promised = 0;
    if (queue->mutex != NULL) {
        lock_reset(queue->mutex);
    }
}

static int
lock_mutex(QueueObject *queue)
{
    if (lock_is_mine(queue->mutex)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "a queue was used while its own _put(), _get() or _qsize() ran");
        return -1;
    }
    return lock_acquire(queue->mutex, -1) < 0 ? -1 : 0;
}

// Begins an operation. 0, or -1 with an exception.
static inline int
enter(QueueObject *queue)
{
    if (queue->fork_count != queue->state->fork_count) {
        forget_left_behind(queue);
    }
    return queue->mutex == NULL ? 0 : lock_mutex(queue);
}

static inline void
leave(QueueObject *queue)
{
    if (queue->mutex != NULL) {
        lock_release(queue->mutex);
    }
}

// Promises to those in [line] what is free.
static void
admit(QueueObject *queue, struct queue_line *line)
{
    if (list_is_empty(&line->waiters)) {
        return;
    }
    Py_ssize_t count = count_free(queue, line);
    if (count < 0) {
        // It is none of the caller's operation, which is done.
        // not reached: a subclass whose _qsize() fails here first
        report_exception((PyObject *)queue);
    }
    while (count-- > 0 && parking_wake_first(&line->waiters, WOKEN_READY) != NULL) {
        line->promised++;
    }
}

// Those who wait go on as far as they can now; keeps an exception that is set.
static void
admit_all(QueueObject *queue)
{
    PyObject *exception = take_exception();
    admit(queue, &queue->getters);
    admit(queue, &queue->putters);
    restore_exception(exception);
}

// Ends an operation, with or without an exception.
static inline void
finish(QueueObject *queue)
{
    if (!list_is_empty(&queue->getters.waiters) ||
        !list_is_empty(&queue->putters.waiters)) {
        admit_all(queue);
    }
    leave(queue);
}

static void
end_promise(struct queue_line *line)
{
    line->promised -= line->promised > 0; // a fork may have ended it
}

// Parks at the end of [line] and comes back with a promise, which is over, in an operation that
// has begun: 0; or -1 with an exception and without an operation. [failure] is for a timeout.
static int
stand_in_line(QueueObject *queue, HubObject *hub, struct waiter *waiter,
              struct queue_line *line, int64_t timeout_ns, PyObject *failure)
{
    leave(queue);
    int status = parking_wait(hub, waiter, &line->waiters, timeout_ns,
                              line == &queue->getters ? "get" : "put", (PyObject *)queue);
    if (status == WOKEN_TIMEOUT || status == WOKEN_CLOSED) {
        PyErr_SetNone(status == WOKEN_TIMEOUT ? failure : queue->state->ShutDown);
        return -1;
    }
    if (status == WOKEN_READY && enter(queue) == 0) {
        end_promise(line);
        return 0;
    }
    if (status == WOKEN_READY || status == PARK_FORFEITED) {
        if (parking_wake_first(&line->waiters, WOKEN_READY) == NULL) {
            end_promise(line);
        }
    }
    return -1;
}

enum turn {
    TURN_FAILED = -1, // with an exception, and the operation is over
    TURN_REFUSED,     // the queue is shut down as far as the caller is concerned
    TURN_GRANTED,     // the caller may do it
    TURN_PROMISED,    // it may, for it had a promise
    TURN_AWAITED,     // somebody else has to do something first
};

// True for who puts while others that came before have a promise and are yet to run: theirs
// come first. Not for who cannot wait. (Getters are told apart by what they take.)
static bool
has_to_follow(const QueueObject *queue, const struct queue_line *line, int64_t timeout_ns)
{
    if (line->promised == 0 || line != &queue->putters || timeout_ns == 0) {
        return false;
    }
    HubObject *hub = hub_peek();
    TaskObject *task = NULL;
    if (hub != NULL && hub_running_task(hub, &task) < 0) {
        PyErr_Clear(); // not reached: the interpreter is being finalised
    }
    return task != NULL;
}

static enum turn
look(QueueObject *queue, struct queue_line *line, int64_t timeout_ns)
{
    if (queue->is_shutdown && line == &queue->putters) {
        return TURN_REFUSED;
    }
    Py_ssize_t count = count_free(queue, line);
    if (count < 0) {
        finish(queue);
        return TURN_FAILED;
    }
    if (count > 0 && !has_to_follow(queue, line, timeout_ns)) {
        return TURN_GRANTED;
    }
    return queue->is_shutdown ? TURN_REFUSED : TURN_AWAITED;
}

// Begins an operation, when it is the caller's turn. Never TURN_AWAITED.
static enum turn
await_turn(QueueObject *queue, struct queue_line *line, int64_t timeout_ns,
           PyObject *failure)
{
    if (enter(queue) < 0) {
        return TURN_FAILED;
    }
    enum turn turn = look(queue, line, timeout_ns);
    if (turn != TURN_AWAITED) {
        return turn;
    }
    HubObject *hub;
    struct waiter *waiter = NULL;
    if (timeout_ns == 0) {
        PyErr_SetNone(failure);
    }
    else {
        waiter =
            parking_prepare(queue->state, line == &queue->getters ? "get" : "put", &hub);
    }
    if (waiter == NULL) {
        finish(queue);
        return TURN_FAILED;
    }
    if (queue->mutex == NULL) {
        // Others may have run meanwhile.
        turn = look(queue, line, timeout_ns);
        if (turn != TURN_AWAITED) {
            // not reached: another thread, since the first look
            hub_release_waiter(hub, waiter);
            return turn;
        }
    }
    if (stand_in_line(queue, hub, waiter, line, timeout_ns, failure) < 0) {
        return TURN_FAILED;
    }
    if (!queue->is_shutdown) {
        return TURN_PROMISED;
    }
    if (line == &queue->putters) {
        return TURN_REFUSED;
    }
    // What was promised may have been dropped.
    turn = look(queue, line, timeout_ns);
    return turn == TURN_GRANTED ? TURN_PROMISED : turn;
}

int
queue_put(QueueObject *queue, PyObject *item, int64_t timeout_ns)
{
    enum turn turn =
        await_turn(queue, &queue->putters, timeout_ns, queue->state->queue_full);
    if (turn == TURN_FAILED) {
        return -1;
    }
    int error = -1;
    if (turn == TURN_REFUSED) {
        PyErr_SetNone(queue->state->ShutDown);
    }
    else {
        error = store_item(queue, item);
    }
    queue->unfinished += error == 0;
    finish(queue);
    return error;
}

PyObject *
queue_get(QueueObject *queue, int64_t timeout_ns)
{
    enum turn turn =
        await_turn(queue, &queue->getters, timeout_ns, queue->state->queue_empty);
    if (turn == TURN_FAILED) {
        return NULL;
    }
    PyObject *item = NULL;
    if (turn == TURN_REFUSED) {
        PyErr_SetNone(queue->state->ShutDown);
    }
    else {
        item = take_item(queue, turn == TURN_PROMISED ? 0 : queue->getters.promised);
    }
    finish(queue);
    return item;
}

// --- Joining and shutting down ----------------------------------------------------------------

int
queue_join(QueueObject *queue)
{
    if (queue->unfinished == 0) {
        return sync_count_operation();
    }
    HubObject *hub;
    struct waiter *waiter = parking_prepare(queue->state, "join", &hub);
    if (waiter == NULL) {
        return -1;
    }
    if (queue->unfinished == 0) {
        // not reached: another thread, since the first look
        hub_release_waiter(hub, waiter);
        return 0;
    }
    int status =
        parking_wait(hub, waiter, &queue->joiners, -1, "join", (PyObject *)queue);
    return status < 0 ? -1 : 0;
}

int
queue_finish_one(QueueObject *queue)
{
    if (queue->unfinished == 0) {
        PyErr_SetString(PyExc_ValueError, "task_done() was called more often than put()");
        return -1;
    }
    if (--queue->unfinished == 0) {
        parking_wake_all(&queue->joiners, WOKEN_READY);
    }
    return 0;
}

// Takes out all items, each of which counts as done. 0, or -1 with an exception.
static int
drop_items(QueueObject *queue)
{
    Py_ssize_t count;
    while ((count = count_items(queue)) > 0) {
        PyObject *item = take_item(queue, 0);
        if (item == NULL) {
            return -1;
        }
        Py_DECREF(item);
        if (queue->unfinished > 0) {
            queue_finish_one(queue);
        }
    }
    return count < 0 ? -1 : 0;
}

int
queue_shut_down(QueueObject *queue, bool is_immediate)
{
    if (enter(queue) < 0) {
        // not reached: nobody interrupts the wait for a mutex
        return -1;
    }
    queue->is_shutdown = true;
    int error = is_immediate ? drop_items(queue) : 0;
    // Nobody waits to get while there is something that nobody else was promised.
    parking_wake_all(&queue->getters.waiters, WOKEN_CLOSED);
    parking_wake_all(&queue->putters.waiters, WOKEN_CLOSED);
    leave(queue);
    return error;
}

void
queue_set_maxsize(QueueObject *queue, Py_ssize_t maxsize)
{
    queue->maxsize = maxsize;
    admit(queue, &queue->putters);
}
