// py_worker.c: greenlets that run one task after the other.
//
// The first Python frame of a greenlet maps a fresh 16 KiB chunk and its end unmaps it;
// that costs more than anything else a short task does. So a worker whose task has ended
// is kept, and takes the next one. Who owns a worker's greenlet: the idle list while it
// is there; the waiter it is parked in; greenlet's thread state while it runs.

#include "py_hub.h"

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

PyObject *
hub_bind_worker(HubObject *hub, TaskObject *task, bool may_start)
{
    struct worker *worker;
    struct list_node *node = idle_limit(hub) > 0 ? list_take_first(&hub->idle) : NULL;
    if (node != NULL) {
        worker = CONTAINER_OF(node, struct worker, idle_link);
        hub->idle_count--;
    } else {
        if (!may_start) {
            return NULL;
        }
        // Only the loop comes here, so it exists.
        PyObject *greenlet =
            greenlet_worker_new(hub->state->worker_type, hub->worker_run, hub->loop);
        if (greenlet == NULL) {
            return NULL;
        }
        worker = greenlet_worker(hub->state->worker_type, greenlet);
    }
    worker->task = task;
    return greenlet_of_worker(worker);
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
        if (hub_switch(hub, greenlet_of_worker(worker)) < 0) {
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
    PyObject *me = greenlet_of_worker(worker);
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
        if (next == NULL || (next != me && hub_switch(hub, next) < 0)) {
            if (list_is_linked(&worker->idle_link)) {
                list_remove(&worker->idle_link);
                hub->idle_count--;
                Py_DECREF(me);
            }
            return -1;
        }
        next = NULL;
    }
    return 0;
}

PyObject *
worker_main(PyObject *self, PyObject *unused)
{
    HubObject *hub = (HubObject *)self;
    (void)unused;
    PyObject *me = greenlet_current();
    if (me == NULL) {
        return NULL;
    }
    Py_DECREF(me);
    struct worker *worker = greenlet_worker(hub->state->worker_type, me);
    for (;;) {
        // The reference that came with the binding, or from the idle list.
        Py_DECREF(me);
        if (worker->must_end) {
            Py_RETURN_NONE;
        }
        TaskObject *task = worker->task;
        task_run(task);
        PyObject *next = task_take_caller(task);
        worker->task = NULL;
        Py_DECREF(task);
        greenlet_clear_attributes(me);
        if (worker->must_end) {
            Py_RETURN_NONE;
        }
        if (wait_for_task(hub, worker, next) < 0) {
            return NULL;
        }
    }
}
