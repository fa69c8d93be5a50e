// py_waiter.c: parking a greenlet and waking it.
//
// The parking greenlet itself looks for who runs next and switches straight there; the
// hub greenlet is not on the way. Invariants:
//   1. A waiter is on its task's list exactly while its greenlet is parked.
//   2. It is on the ready list exactly from being woken until it is chosen to run.
//   3. The first reason to wake wins; later ones are ignored. So what has completed is
//      never also cancelled or timed out.
//   4. A wait whose switch returned NULL passes that exception on and switches no more.

#include "py_hub.h"

#include <assert.h>
#include <stdlib.h>

#include "greenlet_bridge.h"
#include "py_conn.h"
#include "py_convert.h"
#include "py_task.h"

static void
waiter_time_out(struct timer *timer)
{
    struct waiter *waiter = CONTAINER_OF(timer, struct waiter, timer);
    // A disarmed timer is never due, so the waiter is parked and has its task.
    waiter_wake(waiter->task->hub, waiter, WOKEN_TIMEOUT);
}

#if defined(__GNUC__)
#define NOT_INLINE __attribute__((noinline))
#else
#define NOT_INLINE
#endif

void
waiter_init(struct waiter *waiter)
{
    *waiter = (struct waiter){.status = WAITER_FREE};
    timer_init(&waiter->timer, waiter_time_out);
}

// The running greenlet (a new reference) and its task (borrowed); NULL with an exception
// where nobody may wait.
static PyObject *
find_running_task(HubObject *hub, const char *operation, TaskObject **task)
{
    if (hub->is_closed) {
        PyErr_Format(PyExc_RuntimeError, "%s: this hub is closed", operation);
        return NULL;
    }
    if (hub->layer_depth > 0) {
        PyErr_Format(PyExc_RuntimeError, "%s would have to wait, and a %s cannot",
                     operation, hub->is_in_hook ? "hook of the loop" : "transport layer");
        return NULL;
    }
    PyObject *me = greenlet_current();
    if (me == NULL) {
        return NULL;
    }
    *task = hub_task_of(hub, me);
    if (*task == NULL) {
        PyErr_Format(PyExc_RuntimeError,
                     hub->is_in_guest
                         ? "%s would have to wait, and a step of asyncio cannot; await a "
                           "task that does it: await spawn(...)"
                         : "%s would have to wait, and a hub callback cannot; spawn() a "
                           "task that does it",
                     operation);
        Py_DECREF(me);
        return NULL;
    }
    return me;
}

int
hub_check_may_wait(HubObject *hub, const char *operation)
{
    TaskObject *task;
    PyObject *me = find_running_task(hub, operation, &task);
    Py_XDECREF(me);
    return me == NULL ? -1 : 0;
}

struct waiter *
hub_hold_waiter(HubObject *hub, const char *operation)
{
    TaskObject *task;
    PyObject *me = find_running_task(hub, operation, &task);
    if (me == NULL) {
        return NULL;
    }
    struct waiter *waiter = &task->waiter;
    if (waiter->status != WAITER_FREE) {
        // Another greenlet of the task waits in it.
        waiter = malloc(sizeof(*waiter));
        if (waiter == NULL) {
            Py_DECREF(me); // not reached: a second greenlet of a task, without memory
            PyErr_NoMemory();
            return NULL;
        }
        LIVE_COUNT(LIVE_WAITERS, 1);
        waiter_init(waiter);
        waiter->is_allocated = true;
    }
    waiter->status = WAITER_HELD;
    waiter->greenlet = me;
    waiter->task = (TaskObject *)Py_NewRef((PyObject *)task);
    return waiter;
}

void
hub_release_waiter(HubObject *hub, struct waiter *waiter)
{
    PyObject *greenlet = waiter->greenlet;
    TaskObject *task = waiter->task;
    assert(!timer_is_armed(&waiter->timer));
    list_remove(&waiter->link);
    waiter->greenlet = NULL;
    waiter->task = NULL;
    waiter->status = WAITER_FREE;
    if (waiter->is_allocated) {
        timer_wheel_unlink(&hub->reactor.timers, &waiter->timer);
        LIVE_COUNT(LIVE_WAITERS, -1);
        free(waiter);
    }
    // The greenlet is running, so it does not go here. The task may, and the record with
    // it, if a nested greenlet has outlived it.
    Py_DECREF(greenlet);
    Py_DECREF(task);
}

bool
waiter_wake(HubObject *hub, struct waiter *waiter, enum waiter_status status)
{
    if (waiter->status != WAITER_PARKED) {
        return false;
    }
    waiter->status = (uint8_t)status;
    list_remove(&waiter->link); // the queue of what it waited for
    list_append(&hub->ready, &waiter->link);
    return true;
}

// Switches away until the waiter has been woken and chosen to run: foreign code may
// switch to a parked greenlet without our knowing, and then we leave again.
static int
switch_until_chosen(HubObject *hub, struct waiter *waiter)
{
    TaskObject *task = waiter->task;
    while (waiter->status == WAITER_PARKED || list_is_linked(&waiter->link)) {
        // Who enters a coroutine gives way to that one and still owes its own caller.
        PyObject *target = task->caller == NULL || waiter->kind == WAITS_FOR_CALLEE
                               ? NULL
                               : task_take_caller(task);
        if (target == NULL) {
            target = hub_pick_next(hub, false);
        }
        if (target == NULL) {
            return -1;
        }
        if (target != waiter->greenlet &&
            hub_switch(hub, target, waiter->greenlet, task) < 0) {
            return -1;
        }
    }
    return 0;
}

// True if what is left for the main program concerns this wait.
static bool
takes_main_exception(HubObject *hub, PyObject *greenlet, TaskObject *task)
{
    if (hub->main_exception == NULL || task != hub_main_task(hub)) {
        return false;
    }
    struct waiter *other = task_own_wait(task);
    return other == NULL || other->greenlet == greenlet;
}

// Raises what keeps the greenlet from waiting: 0 if nothing does, else -1.
static int
refuse_wait(HubObject *hub, struct waiter *waiter)
{
    waiter->is_cancelled = false;
    if (hub->main_exception == NULL && !task_may_be_cancelled(waiter->task)) {
        return 0;
    }
    if (takes_main_exception(hub, waiter->greenlet, waiter->task) &&
        // not reached: an interrupt between two waits
        hub_raise_main_exception(hub) < 0) {
        return -1;
    }
    ScopeObject *scope;
    waiter->is_cancelled = task_is_cancel_due(waiter->task, &scope);
    // Who swallows one Cancelled after the other gives way in between: see begin_wait.
    if (waiter->is_cancelled && !task_count_refusal(waiter->task) &&
        ++hub->unblocked_operations < HUB_OPERATION_BUDGET) {
        return task_raise_cancelled(waiter->task, scope);
    }
    return 0;
}

// Puts the running greenlet on record as parked, for what the record says. 0, or -1 with an
// exception and the record released.
static NOT_INLINE int
begin_wait(HubObject *hub, struct waiter *waiter, struct waiter **place,
           struct list_node *queue, int64_t timeout_ns)
{
    if (refuse_wait(hub, waiter) < 0) {
        hub_release_waiter(hub, waiter);
        return -1;
    }
    if (waiter->is_cancelled) {
        bool is_slowed = waiter->task->refusals == CANCEL_LIMIT;
        waiter->kind = is_slowed ? WAITS_FOR_TIME : WAITS_FOR_TURN;
        timeout_ns = is_slowed ? CANCEL_PAUSE_NS : -1;
        queue = NULL; // it has no use for what it would be given there
    }
    waiter->status = WAITER_PARKED;
    waiter->task->switch_count++;
    list_append(&waiter->task->waiters, &waiter->task_link);
    if (place != NULL) {
        *place = waiter;
    }
    if (queue != NULL) {
        list_append(queue, &waiter->link);
    }
    hub->kernel_wait_count += waiter->kind == WAITS_FOR_KERNEL;
    hub->unblocked_operations = 0;
    if (waiter->kind == WAITS_FOR_TURN) {
        waiter_wake(hub, waiter, WOKEN_READY);
    }
    if (timeout_ns >= 0) {
        reactor_arm(&hub->reactor, &waiter->timer, (uint64_t)timeout_ns);
        hub->wait_time_ns = hub->reactor.now_ns; // as it has just been read
    }
    waiter->since_ns = hub_wait_time(hub);
    // Late, for layers of what is sent run Python code, which may do what we wait for.
    hub_flush_output(hub);
    hub_note_cpu(hub, waiter->task);
    return 0;
}

// What the waker's reason means to the caller of hub_park().
static int
conclude_wait(HubObject *hub, struct waiter *waiter, enum waiter_status status)
{
    if (takes_main_exception(hub, waiter->greenlet, waiter->task) &&
        hub_raise_main_exception(hub) < 0) {
        return -1;
    }
    if (status == WOKEN_INTERRUPTED) {
        // Another greenlet of the main program came first and has the exception.
        // not reached: two greenlets of the main program
        PyErr_SetNone(PyExc_KeyboardInterrupt);
        return -1;
    }
    if (status == WOKEN_CANCELLED || waiter->is_cancelled) {
        ScopeObject *scope = NULL;
        task_is_cancel_due(waiter->task, &scope);
        return task_raise_cancelled(waiter->task, scope);
    }
    waiter->task->refusals = 0;
    return (int)status;
}

static NOT_INLINE int
end_wait(HubObject *hub, struct waiter *waiter, struct waiter **place, int result)
{
    enum waiter_status status = waiter->status;
    waiter->status = WAITER_HELD;
    hub->kernel_wait_count -= waiter->kind == WAITS_FOR_KERNEL;
    list_remove(&waiter->task_link);
    list_remove(&waiter->link);
    if (timer_is_armed(&waiter->timer)) {
        timer_wheel_disarm(&hub->reactor.timers, &waiter->timer);
    }
    if (place != NULL && *place == waiter) {
        *place = NULL;
    }
    if (result == 0) {
        result = conclude_wait(hub, waiter, status);
    }
    if (result < 0 && status == WOKEN_READY && waiter->kind != WAITS_FOR_TURN) {
        result = PARK_FORFEITED;
    }
    // Not before: concluding may run code that waits, and needs a record of its own.
    hub_release_waiter(hub, waiter);
    return result;
}

// Parks with a record that names the wait. Its callers end with it, so that their frames go.
static NOT_INLINE int
park(HubObject *hub, struct waiter *waiter, struct waiter **place,
     struct list_node *queue, int64_t timeout_ns)
{
    if (begin_wait(hub, waiter, place, queue, timeout_ns) < 0) {
        return -1;
    }
    // This frame and those that called it are kept for each suspended greenlet, and copied
    // at each switch; hence what comes before and after has frames of its own.
    return end_wait(hub, waiter, place, switch_until_chosen(hub, waiter));
}

static void
name_wait(struct waiter *waiter, enum waiter_kind kind, const char *operation,
          PyObject *subject)
{
    waiter->kind = (uint8_t)kind;
    waiter->operation = operation;
    waiter->subject = subject;
}

int
hub_park_held(HubObject *hub, struct waiter *waiter, struct waiter **place,
              struct list_node *queue, enum waiter_kind kind, int64_t timeout_ns,
              const char *operation, PyObject *subject)
{
    name_wait(waiter, kind, operation, subject);
    return park(hub, waiter, place, queue, timeout_ns);
}

int
hub_park(HubObject *hub, struct waiter **place, struct list_node *queue,
         enum waiter_kind kind, int64_t timeout_ns, const char *operation,
         PyObject *subject)
{
    struct waiter *waiter = hub_hold_waiter(hub, operation);
    if (waiter == NULL) {
        return -1;
    }
    name_wait(waiter, kind, operation, subject);
    return park(hub, waiter, place, queue, timeout_ns);
}

static void
stop_timers(HubObject *hub, TaskObject *task)
{
    task_stop_scopes(task);
    for (struct list_node *node = task->waiters.next; node != &task->waiters;
         node = node->next) {
        struct waiter *waiter = CONTAINER_OF(node, struct waiter, task_link);
        timer_wheel_unlink(&hub->reactor.timers, &waiter->timer);
    }
}

void
hub_stop_timers(HubObject *hub)
{
    if (hub->main_task != NULL) {
        stop_timers(hub, hub->main_task);
    }
    for (struct list_node *node = hub->tasks.next; node != &hub->tasks;
         node = node->next) {
        stop_timers(hub, CONTAINER_OF(node, TaskObject, hub_link));
    }
}

int
hub_give_way(HubObject *hub)
{
    TaskObject *task;
    if (hub_running_task(hub, &task) < 0) {
        return -1; // not reached: the interpreter is being finalised
    }
    hub->unblocked_operations = 0;
    // A hub callback or a layer cannot give way, and nothing it does now has to wait.
    return task == NULL || hub->layer_depth > 0 ? 0 : hub_yield(hub, "giving way");
}

int
hub_yield(HubObject *hub, const char *operation)
{
    return hub_park(hub, NULL, NULL, WAITS_FOR_TURN, -1, operation, NULL) < 0 ? -1 : 0;
}
