// py_worker.c: greenlets that run one task after the other.
//
// The first Python frame of a greenlet maps a fresh 16 KiB chunk and its end unmaps it;
// that costs more than anything else a short task does. So a worker whose task has ended
// is kept, and takes the next one. Who owns a worker's greenlet: the idle list while it
// is there; the waiter it is parked in; greenlet's thread state while it runs.

#include "py_hub.h"

#include <stdlib.h>

#include "greenlet_bridge.h"
#include "py_conn.h"
#include "py_task.h"

#define MAX_IDLE_WORKERS 1024

// How many idle workers the hub may keep.
static size_t
idle_limit(HubObject *hub)
{
    return hub->state->reuses_workers && !hub->is_closing ? MAX_IDLE_WORKERS : 0;
}

static struct worker *
start_worker(HubObject *hub)
{
    struct worker *worker = calloc(1, sizeof(*worker));
    if (worker == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    // Only the loop comes here, so it exists.
    worker->greenlet = greenlet_new(hub->worker_run, hub->loop);
    if (worker->greenlet == NULL) {
        free(worker);
        return NULL;
    }
    LIVE_COUNT(LIVE_WORKERS, 1);
    hub->starting = worker;
    return worker;
}

PyObject *
hub_bind_worker(HubObject *hub, TaskObject *task, bool may_start)
{
    struct worker *worker;
    struct list_node *node = idle_limit(hub) > 0 ? list_take_first(&hub->idle) : NULL;
    if (node != NULL) {
        worker = CONTAINER_OF(node, struct worker, idle_link);
        hub->idle_count--;
    }
    else {
        worker = may_start ? start_worker(hub) : NULL;
    }
    if (worker == NULL) {
        return NULL;
    }
    worker->task = task;
    task->greenlet = worker->greenlet;
    return worker->greenlet;
}

void
hub_trim_workers(HubObject *hub, unsigned at_most)
{
    for (; at_most > 0 && hub->idle_count > idle_limit(hub); at_most--) {
        // The one idle longest; its memory is the coldest.
        struct list_node *node = hub->idle.previous;
        list_remove(node);
        hub->idle_count--;
        struct worker *worker = CONTAINER_OF(node, struct worker, idle_link);
        worker->must_end = true;
        if (hub_switch(hub, worker->greenlet, hub->loop, NULL) < 0) {
            // not reached: a worker ends without an exception
            PyErr_WriteUnraisable((PyObject *)hub);
        }
    }
    if (hub->idle_count > idle_limit(hub)) {
        hub->needs |= HUB_NEEDS_TRIM;
    }
}

// Goes on the idle list and lets others run until there is a task to do, or the worker
// must end. [next] is whom to switch to first, NULL = whoever is next.
static int
wait_for_task(HubObject *hub, struct worker *worker, PyObject *next)
{
    PyObject *me = worker->greenlet;
    hub_flush_output(hub);
    Py_INCREF(me);
    list_prepend(&hub->idle, &worker->idle_link);
    if (++hub->idle_count > idle_limit(hub)) {
        hub->needs |= HUB_NEEDS_TRIM;
    }
    while (worker->task == NULL && !worker->must_end) {
        if (next == NULL) {
            next = hub_pick_next(hub, false);
        }
        if (next == NULL || (next != me && hub_switch(hub, next, me, NULL) < 0)) {
            if (list_is_linked(&worker->idle_link)) {
                list_remove(&worker->idle_link);
                hub->idle_count--;
                Py_DECREF(me);
            }
            return -1;
        }
        next = NULL;
    }
    // The reference that came back from the idle list.
    Py_DECREF(me);
    return 0;
}

// Runs the task that is bound to the worker. Whom to switch to next, borrowed; NULL =
// whoever is next.
static PyObject *
run_bound_task(HubObject *hub, struct worker *worker)
{
    TaskObject *task = worker->task;
    hub->current_greenlet = worker->greenlet;
    hub->current_task = task;
    task_run(task);
    hub_note_cpu(hub, task);
    PyObject *next = NULL;
    if (task_was_killed(task)) {
        // Somebody let go of the greenlet, and waits on the spot for its end: no hand-off.
        worker->must_end = true;
        task_wake_caller(task);
    }
    else {
        next = task_take_caller(task);
    }
    task->greenlet = NULL;
    worker->task = NULL;
    hub->current_greenlet = worker->greenlet;
    hub->current_task = NULL;
    Py_DECREF(task);
    greenlet_clear_attributes(worker->greenlet);
    return next;
}

PyObject *
worker_main(PyObject *self, PyObject *unused)
{
    HubObject *hub = (HubObject *)self;
    struct worker *worker = hub->starting;
    (void)unused;
    hub->starting = NULL;
    // The one it was made with; greenlet holds another one while it runs.
    Py_DECREF(worker->greenlet);
    int error = 0;
    while (error == 0 && !worker->must_end) {
        PyObject *next = run_bound_task(hub, worker);
        worker->must_end |=
            hub->is_closed; // foreign code resumed a task that was given up
        if (!worker->must_end) {
            error = wait_for_task(hub, worker, next);
        }
    }
    hub->current_greenlet = NULL;
    LIVE_COUNT(LIVE_WORKERS, -1);
    free(worker);
    return error < 0 ? NULL : Py_NewRef(Py_None);
}
