// py_coroutine.c: the five calls of pcl(3) that the seed's programs use, over tasks.
//
// A coroutine entered by co_call runs at once and gives control back to that caller when
// it first waits, for whatever, or calls co_resume; no hand-off comes between. From then
// on it is resumed by whom it waits for, and its next wait hands off like any other.

#include "py_task.h"

#include "py_convert.h"

PyObject *
coroutine_create(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    if (count < 1) {
        PyErr_SetString(PyExc_TypeError,
                        "co_create() missing required argument 'function'");
        return NULL;
    }
    HubObject *hub = hub_get(module_state_of(module));
    if (hub == NULL) {
        return NULL;
    }
    return (PyObject *)task_new(hub, arguments[0], arguments + 1, count - 1, NULL);
}

// The task behind [object] if the caller may enter or delete it; NULL with an exception.
static TaskObject *
check_coroutine(PyObject *module, PyObject *object)
{
    if (!Py_IS_TYPE(object, module_state_of(module)->task_type)) {
        PyErr_Format(PyExc_TypeError, "a coroutine was expected, not %s",
                     Py_TYPE(object)->tp_name);
        return NULL;
    }
    TaskObject *task = (TaskObject *)object;
    if (hub_check_thread(task->hub, "the coroutine") < 0) {
        return NULL;
    }
    return task;
}

PyObject *
task_take_caller(TaskObject *task)
{
    struct waiter *caller = task->caller;
    if (caller == NULL) {
        return NULL;
    }
    task->caller = NULL;
    if (caller->status != WAITER_PARKED) {
        return NULL; // something else has woken it; it has its place in line
    }
    // Chosen here and now, so it never stands on the ready list.
    caller->status = WOKEN_READY;
    return caller->greenlet;
}

void
task_wake_caller(TaskObject *task)
{
    struct waiter *caller = task->caller;
    task->caller = NULL;
    if (caller != NULL) {
        // not reached: a called coroutine that was killed
        waiter_wake(task->hub, caller, WOKEN_READY);
    }
}

// Puts the coroutine in front of all that is ready.
static void
make_first(TaskObject *task)
{
    HubObject *hub = task->hub;
    struct waiter *waiter = &task->waiter;
    if (task->state == TASK_CREATED) {
        task_queue(task);
    }
    else {
        waiter = task->resume_waiter;
        waiter_wake(hub, waiter, WOKEN_READY);
    }
    list_remove(&waiter->link);
    list_prepend(&hub->ready, &waiter->link);
    // No look at the engine comes before it, and a dispatch by hand has room for it.
    hub->handoffs = 0;
    hub->dispatch_resumes++;
}

PyObject *
coroutine_call(PyObject *module, PyObject *object)
{
    TaskObject *task = check_coroutine(module, object);
    if (task == NULL) {
        return NULL;
    }
    if (task->state != TASK_CREATED && task->resume_waiter == NULL) {
        PyErr_Format(PyExc_RuntimeError,
                     task_has_ended(task) ? "%R has ended"
                                          : "%R does not wait in co_resume()",
                     object);
        return NULL;
    }
    HubObject *hub = task->hub;
    // Before the coroutine is queued, for then there is no way back.
    if (hub_check_may_wait(hub, "co_call") < 0) {
        return NULL;
    }
    make_first(task);
    int status =
        hub_park(hub, &task->caller, NULL, WAITS_FOR_CALLEE, -1, "co_call", object);
    if (status < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *
coroutine_resume(PyObject *module, PyObject *unused)
{
    (void)unused;
    HubObject *hub = hub_get(module_state_of(module));
    TaskObject *task;
    if (hub == NULL || hub_running_task(hub, &task) < 0) {
        return NULL;
    }
    if (task == NULL || task->is_main) {
        PyErr_SetString(
            PyExc_RuntimeError,
            "co_resume() gives control back from a coroutine; the main program "
            "has nobody to give it to");
        return NULL;
    }
    if (task->resumes_at_once) {
        task->resumes_at_once = false;
        if (hub_count_operation(hub) < 0) {
            // not reached: cancelled while it gives way
            return NULL;
        }
        Py_RETURN_NONE;
    }
    if (task->resume_waiter != NULL) {
        // not reached: two greenlets of one coroutine
        PyErr_SetString(PyExc_RuntimeError, "this coroutine is in co_resume() already");
        return NULL;
    }
    int status = hub_park(hub, &task->resume_waiter, NULL, WAITS_FOR_KERNEL, -1,
                          "co_resume", NULL);
    if (status < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *
coroutine_delete(PyObject *module, PyObject *object)
{
    TaskObject *task = check_coroutine(module, object);
    if (task == NULL) {
        return NULL;
    }
    TaskObject *running;
    if (hub_running_task(task->hub, &running) < 0) {
        return NULL;
    }
    if (task == running) {
        PyErr_SetString(PyExc_RuntimeError, "a coroutine cannot delete itself");
        return NULL;
    }
    task_cancel(task, NULL);
    if (task->state == TASK_CREATED) {
        task_raise_cancelled(task, NULL);
        task_finish(task, NULL);
    }
    Py_RETURN_NONE;
}
