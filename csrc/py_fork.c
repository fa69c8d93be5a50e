// py_fork.c: what becomes of a hub in a forked child.
//
// Only the forking coroutine lives on. Everybody else is abandoned: never resumed, never
// cancelled, their finally blocks never run, for that is the parent's business. To drop a
// suspended greenlet would run its finally blocks on the spot, so their references are
// given up without being released.

#include "py_hub.h"

#include <unistd.h>

#include "py_conn.h"
#include "py_convert.h"
#include "py_guest.h"
#include "py_handle.h"
#include "py_task.h"

static void
abandon_waiters(HubObject *hub, TaskObject *task)
{
    struct list_node *node;
    while ((node = list_take_first(&task->waiters)) != NULL) {
        struct waiter *waiter = CONTAINER_OF(node, struct waiter, task_link);
        list_remove(&waiter->link);
        timer_wheel_unlink(&hub->reactor.timers, &waiter->timer);
        waiter->greenlet = NULL;
        waiter->task = NULL;
        waiter->status = WAITER_FREE;
    }
}

static void
abandon_task(HubObject *hub, TaskObject *task)
{
    abandon_waiters(hub, task);
    list_remove(&task->waiter.link);
    Py_INCREF(task); // never given back: it must not end by being dropped
    task_stop_scopes(task);
    group_abandon_member(task);
    if (!task->is_main) {
        list_remove(&task->hub_link);
        hub->task_count--;
    }
}

static void
abandon_others(HubObject *hub, TaskObject *survivor)
{
    struct list_node *node = hub->tasks.next;
    while (node != &hub->tasks) {
        TaskObject *task = CONTAINER_OF(node, TaskObject, hub_link);
        node = node->next; // abandoning runs nothing, so it stays valid
        if (task != survivor) {
            abandon_task(hub, task);
        }
    }
    if (survivor != hub->main_task) {
        abandon_waiters(hub, hub->main_task);
    }
}

// What the survivor's other greenlets wait for from the kernel.
static size_t
count_kernel_waits(TaskObject *survivor)
{
    size_t count = 0;
    struct list_node *head = &survivor->waiters;
    for (struct list_node *node = head->next; node != head; node = node->next) {
        count += CONTAINER_OF(node, struct waiter, task_link)->kind == WAITS_FOR_KERNEL;
    }
    return count;
}

static void
lose_registrations(HubObject *hub)
{
    for (size_t fd = 0; fd < hub->reactor.watches.capacity; fd++) {
        struct ready_target *target = reactor_owner(&hub->reactor, (int)fd);
        if (target != NULL) {
            target->on_lost(target, true);
        }
    }
}

// The hubs of the parent's other threads are not there.
static void
forget_other_hubs(struct module_state *state, HubObject *hub)
{
    while (list_take_first(&state->open_hubs) != NULL) {
    }
    if (hub != NULL) {
        list_append(&state->open_hubs, &hub->state_link);
    }
}

// What callbacks were to be told is the parent's business as well.
static void
abandon_calls(HubObject *hub)
{
    hub_drop_calls(hub, true);
    hub->callback_count = 0; // also of those that were closed and had not heard of it
    hub->is_stopping = false;
}

PyObject *
hub_after_fork_in_child(PyObject *module, PyObject *unused)
{
    (void)unused;
    HubObject *hub = hub_peek();
    struct module_state *state = module_state_of(module);
    state->fork_count++;
    forget_other_hubs(state, hub);
    if (hub == NULL) {
        Py_RETURN_NONE;
    }
    TaskObject *survivor;
    if (hub_running_task(hub, &survivor) < 0) {
        return NULL; // not reached: nobody forks while finalising
    }
    if (survivor == NULL) {
        survivor = hub->main_task; // a hub callback forked, for nobody in particular
    }
    int error = reactor_after_fork(&hub->reactor);
    handles_abandon(hub); // first: a handler of SIGINT gives it back to the hub
    guests_abandon(hub);
    // After the engine, so that the pipe's end there is the parent's no more; taken over
    // anew when it is needed.
    hub_give_signals_back(hub);
    abandon_others(hub, survivor);
    lose_registrations(hub);
    abandon_calls(hub);
    hub->is_main_thread = true; // the forking thread is the child's only one
    hub->kernel_wait_count = count_kernel_waits(survivor);
    hub->needs = hub_wanted_watchers(hub);
    hub->cpu_watchers = 0;
    hub->dispatcher = survivor == hub->main_task ? hub->dispatcher : NULL;
    hub->is_running &= survivor == hub->main_task;
    hub->calls.is_halted &= hub->is_running;
    hub->orphan = survivor != hub->main_task ? survivor : NULL;
    if (error < 0) {
        // not reached: a child without a descriptor to spare
        return raise_errno(error);
    }
    Py_RETURN_NONE;
}

// The status that the interpreter would end with after the task's outcome.
static int
exit_status(TaskObject *task)
{
    if (task->state != TASK_FAILED) {
        return 0;
    }
    if (!PyObject_TypeCheck(task->value, (PyTypeObject *)PyExc_SystemExit)) {
        return 1;
    }
    PyObject *code = PyObject_GetAttrString(task->value, "code");
    int status = 1;
    if (code == Py_None) {
        status = 0;
    }
    else if (code != NULL && PyLong_Check(code)) {
        status = (int)PyLong_AsLong(code);
    }
    else if (code != NULL) {
        PySys_FormatStderr("%S\n", code);
    }
    Py_XDECREF(code);
    PyErr_Clear();
    return status;
}

void
hub_end_orphaned_process(TaskObject *task)
{
    int status = exit_status(task);
    static const char *const streams[] = {"stdout", "stderr"};
    hub_flush_output(task->hub);
    inspect_stop();
    for (size_t i = 0; i < Py_ARRAY_LENGTH(streams); i++) {
        PyObject *stream = PySys_GetObject(streams[i]); // borrowed
        PyObject *result = stream == NULL || stream == Py_None
                               ? NULL
                               : call_attribute(stream, "flush", NULL);
        if (result == NULL && PyErr_Occurred()) {
            PyErr_WriteUnraisable(stream);
        }
        Py_XDECREF(result);
    }
    _exit(status);
}
