// py_inspect.c: what tells from outside what a hub does: who waits for what and for how long,
// who holds it, who has used how much CPU time; and the threads that look at it.
//
// Most of what is here may be called by any thread, so that it answers when the hub does not.
// The GIL guards it. A list of the hub's is walked without anything in between that could give
// the GIL up: memory for what the collector does not track, and nothing else. Words are made of
// it by pycoronet/_waits.py, afterwards.

#include "py_hub.h"

#include <stdio.h>
#include <stdlib.h>

#include "cpu_clock.h"
#include "py_convert.h"
#include "py_task.h"

#define NS_PER_S UINT64_C(1000000000)

// --- CPU time ---------------------------------------------------------------------------

void
hub_charge_cpu(HubObject *hub, TaskObject *task)
{
    uint64_t now_ns = cpu_clock_of_thread(hub->thread_id);
    if (now_ns == 0) {
        // not reached: Linux tells of other threads too
        return; // we are another thread, and this system does not tell
    }
    if (hub->cpu_mark_ns != 0) {
        *(task == NULL ? &hub->cpu_ns : &task->cpu_ns) += now_ns - hub->cpu_mark_ns;
    }
    hub->cpu_mark_ns = now_ns;
}

// Who runs now: NULL for the hub itself, be it in a callback or waiting for events. Borrowed.
static TaskObject *
holder(const HubObject *hub)
{
    if (hub->is_polling || (hub->loop != NULL && hub->current_greenlet == hub->loop)) {
        return NULL;
    }
    // Before the first switch it is nobody's.
    return hub->current_task == NULL ? hub->main_task : hub->current_task;
}

// --- What a task does -------------------------------------------------------------------

static uint64_t
waited_ns(HubObject *hub, const struct waiter *waiter)
{
    uint64_t now_ns = hub->is_closed ? 0 : reactor_now_ns(&hub->reactor);
    return now_ns > waiter->since_ns ? now_ns - waiter->since_ns : 0;
}

// "recv for 3.2 s" of a waiter, or NULL with an exception.
static PyObject *
describe_wait(HubObject *hub, const struct waiter *waiter)
{
    if (waiter->status != WAITER_PARKED) {
        return PyUnicode_FromFormat("%s, ready to go on", waiter->operation);
    }
    uint64_t tenths = waited_ns(hub, waiter) / (NS_PER_S / 10);
    return PyUnicode_FromFormat("%s for %llu.%u s", waiter->operation,
                                (unsigned long long)(tenths / 10),
                                (unsigned)(tenths % 10));
}

PyObject *
describe_waits(HubObject *hub, const struct waiter *first, const struct waiter *second)
{
    PyObject *text = PyUnicode_FromString("");
    const struct waiter *const waiters[] = {first, second};
    const char *joint = " waiting in ";
    for (size_t i = 0; i < Py_ARRAY_LENGTH(waiters) && text != NULL; i++) {
        if (waiters[i] == NULL) {
            continue;
        }
        PyObject *wait = describe_wait(hub, waiters[i]);
        Py_SETREF(text, wait == NULL ? NULL
                                     : PyUnicode_FromFormat("%U%s%U", text, joint, wait));
        Py_XDECREF(wait);
        joint = ", in ";
    }
    return text;
}

// What the task does, or how it ended, in a word.
static const char *
state_of(const TaskObject *task)
{
    static const char *const names[] = {
        [TASK_CREATED] = "not begun", [TASK_QUEUED] = "queued",
        [TASK_RUNNING] = "running",   [TASK_SUCCEEDED] = "done",
        [TASK_FAILED] = "failed",     [TASK_CANCELLED] = "cancelled",
    };
    if (task->state != TASK_RUNNING) {
        return names[task->state];
    }
    if (!list_is_empty(&task->waiters)) {
        struct list_node *node = task->waiters.previous;
        struct waiter *waiter = CONTAINER_OF(node, struct waiter, task_link);
        return waiter->status == WAITER_PARKED ? "waiting" : "ready";
    }
    // Of those that a fork has left behind nothing is known any more.
    return task->is_main || list_is_linked(&task->hub_link) ? "running" : "left behind";
}

PyObject *
task_describe_state(TaskObject *task)
{
    const struct waiter *wait = task_own_wait(task);
    if (wait == NULL && !list_is_empty(&task->waiters)) {
        wait = CONTAINER_OF(task->waiters.previous, struct waiter, task_link);
    }
    if (wait == NULL) {
        return PyUnicode_FromFormat(" %s", state_of(task));
    }
    return describe_waits(task->hub, wait, NULL);
}

// --- Lists ------------------------------------------------------------------------------

static PyObject *
seconds_left(HubObject *hub, const struct timer *timer)
{
    if (!timer_is_armed(timer) || hub->is_closed) {
        return Py_NewRef(Py_None);
    }
    uint64_t now_ms = hub->reactor.now_ns / 1000000;
    uint64_t left_ms = timer->deadline_ms > now_ms ? timer->deadline_ms - now_ms : 0;
    return PyFloat_FromDouble((double)left_ms / 1e3);
}

// Five items for each wait of the task: operation, subject or None, seconds so far, seconds
// left or None, whether it is over. 0, or -1 with an exception.
static int
collect_waits(HubObject *hub, TaskObject *task, PyObject *list)
{
    int error = 0;
    for (struct list_node *node = task->waiters.next;
         node != &task->waiters && error == 0; node = node->next) {
        struct waiter *waiter = CONTAINER_OF(node, struct waiter, task_link);
        double seconds = (double)waited_ns(hub, waiter) / (double)NS_PER_S;
        PyObject *subject = waiter->subject == NULL ? Py_None : waiter->subject;
        bool is_over = waiter->status != WAITER_PARKED;
        if (append_item(list, PyUnicode_FromString(waiter->operation)) < 0 ||
            PyList_Append(list, subject) < 0 ||
            append_item(list, PyFloat_FromDouble(seconds)) < 0 ||
            append_item(list, seconds_left(hub, &waiter->timer)) < 0 ||
            PyList_Append(list, is_over ? Py_True : Py_False) < 0) {
            error = -1;
        }
    }
    return error;
}

// Of those that have begun and not ended, and of those that wait to begin.
static int
collect_tasks(HubObject *hub, PyObject *list)
{
    if (hub->is_closed) {
        return 0;
    }
    int error = PyList_Append(list, (PyObject *)hub->main_task);
    for (struct list_node *node = hub->tasks.next; node != &hub->tasks && error == 0;
         node = node->next) {
        error = PyList_Append(list, (PyObject *)CONTAINER_OF(node, TaskObject, hub_link));
    }
    return error;
}

// (task, state, switches, CPU seconds, what collect_waits() gives): a new reference.
static PyObject *
describe_row(HubObject *hub, TaskObject *task)
{
    PyObject *waits = PyList_New(0);
    if (waits == NULL || collect_waits(hub, task, waits) < 0) {
        Py_XDECREF(waits);
        return NULL;
    }
    return Py_BuildValue("(OsKdN)", task, state_of(task), task->switch_count,
                         (double)task->cpu_ns / (double)NS_PER_S, waits);
}

static PyObject *
Hub_list_tasks(HubObject *hub, PyObject *unused)
{
    (void)unused;
    if (hub->cpu_watchers > 0 && !hub->is_closed) {
        hub_charge_cpu(hub, holder(hub));
    }
    PyObject *tasks = PyList_New(0);
    PyObject *rows = tasks == NULL ? NULL : PyList_New(0);
    int error = rows == NULL ? -1 : collect_tasks(hub, tasks);
    for (Py_ssize_t i = 0; error == 0 && i < PyList_GET_SIZE(tasks); i++) {
        error =
            append_item(rows, describe_row(hub, (TaskObject *)PyList_GET_ITEM(tasks, i)));
    }
    Py_XDECREF(tasks);
    if (error < 0) {
        Py_CLEAR(rows);
    }
    return rows;
}

PyObject *
inspect_list_hubs(PyObject *module, PyObject *unused)
{
    struct list_node *head = &module_state_of(module)->open_hubs;
    (void)unused;
    PyObject *list = PyList_New(0);
    int error = list == NULL ? -1 : 0;
    for (struct list_node *node = head->next; node != head && error == 0;
         node = node->next) {
        error =
            PyList_Append(list, (PyObject *)CONTAINER_OF(node, HubObject, state_link));
    }
    if (error < 0) {
        Py_CLEAR(list);
    }
    return list;
}

// pycoronet.<module>.<name>(argument), whatever that is: a new reference, NULL with an
// exception.
static PyObject *
call_python(const char *module_name, const char *name, PyObject *argument)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *function = module == NULL ? NULL : get_attribute(module, name);
    PyObject *result = function == NULL ? NULL : PyObject_CallOneArg(function, argument);
    Py_XDECREF(module);
    Py_XDECREF(function);
    return result;
}

PyObject *
hub_explain_waits(HubObject *hub)
{
    return call_python("pycoronet._waits", "explain", (PyObject *)hub);
}

PyObject *
hub_describe_tasks(HubObject *hub)
{
    return call_python("pycoronet._waits", "describe_tasks", (PyObject *)hub);
}

PyDoc_STRVAR(
    waiters_doc,
    "waiters($self, /)\n--\n\n"
    "Who waits for what: a list of str, one a wait. Never switches.\n\n"
    "\"Task 'a': acquire <Lock at 0x7f01> held by Task 'b'\". For the hub's own thread.");

static PyObject *
Hub_waiters(HubObject *hub, PyObject *unused)
{
    (void)unused;
    if (hub_check_thread(hub, "this hub") < 0) {
        return NULL;
    }
    PyObject *waits = hub_explain_waits(hub);
    PyObject *lines = waits == NULL ? NULL : PySequence_GetItem(waits, 0);
    Py_XDECREF(waits);
    return lines;
}

// --- Who holds the hub ------------------------------------------------------------------

PyDoc_STRVAR(
    progress_doc,
    "_progress($self, /)\n--\n\n"
    "Numbers that change whenever somebody else gets the hub; None while it waits\n"
    "for events. For any thread.");

static PyObject *
Hub_progress(HubObject *hub, PyObject *unused)
{
    (void)unused;
    if (hub->is_polling || hub->is_closed) {
        Py_RETURN_NONE;
    }
    return Py_BuildValue("(KKI)", hub->turn_count, hub->switch_count, hub->handoffs);
}

PyDoc_STRVAR(holder_doc, "_holder($self, /)\n--\n\n"
                         "The Task that runs; None for the hub itself. For any thread.");

static PyObject *
Hub_holder(HubObject *hub, PyObject *unused)
{
    (void)unused;
    TaskObject *task = hub->is_closed ? NULL : holder(hub);
    return Py_NewRef(task == NULL ? Py_None : (PyObject *)task);
}

PyDoc_STRVAR(
    measure_cpu_doc,
    "_measure_cpu($self, is_wanted, /)\n--\n\n"
    "Measure the CPU time of tasks for one more; False ends it. For any thread.");

static PyObject *
Hub_measure_cpu(HubObject *hub, PyObject *is_wanted)
{
    if (is_wanted == Py_True) {
        if (hub->cpu_watchers++ == 0) {
            hub->cpu_mark_ns = hub->is_closed ? 0 : cpu_clock_of_thread(hub->thread_id);
        }
    }
    else if (hub->cpu_watchers > 0) {
        hub->cpu_watchers--;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    set_stall_limit_doc,
    "set_stall_limit($self, /, seconds, function=None)\n--\n\n"
    "Have a thread report who keeps the hub for longer than so many seconds at a time.\n\n"
    "seconds: more than 0; None ends it. function(error) is called with a StalledError, which\n"
    "has the Python stack; in the watching thread, while the hub is stuck, so it may not use\n"
    "the hub but by call_soon_threadsafe(). Without a function, and for what it raises,\n"
    "sys.unraisablehook is called there. Each stall is reported once, up to a quarter of the\n"
    "limit late; one that is not much longer than the limit may be missed.\n\n"
    "A coroutine that never waits counts, a callback (with those of the same round), and the\n"
    "main program while it does something else. A forked child goes on with it; it ends with\n"
    "the hub. Raises TypeError, ValueError, RuntimeError if the hub is closed or another\n"
    "thread's, or no thread can be started. Never switches.");

static PyObject *
Hub_set_stall_limit(HubObject *hub, PyObject *const *arguments, Py_ssize_t count,
                    PyObject *keyword_names)
{
    static const char *const names[] = {"seconds", "function", NULL};
    static const struct parameters parameters = {"set_stall_limit", names, 1, 2};
    PyObject *values[2];
    int64_t limit_ns;
    if (parse_arguments(&parameters, arguments, count, keyword_names, values) < 0 ||
        convert_timeout(values[0], &limit_ns) < 0 ||
        hub_check_thread(hub, "this hub") < 0) {
        return NULL;
    }
    PyObject *function = values[1] == NULL ? Py_None : values[1];
    if (function != Py_None && !PyCallable_Check(function)) {
        return PyErr_Format(PyExc_TypeError,
                            "function must be callable or None, not %.100s",
                            Py_TYPE(function)->tp_name);
    }
    if (limit_ns == 0 || hub->is_closed || hub->is_closing) {
        PyErr_SetString(limit_ns == 0 ? PyExc_ValueError : PyExc_RuntimeError,
                        limit_ns == 0 ? "the limit must be more than 0 seconds"
                                      : "this hub is closed");
        return NULL;
    }
    PyObject *watch = NULL;
    if (limit_ns > 0) {
        PyObject *settings =
            Py_BuildValue("(OdO)", hub, (double)limit_ns / (double)NS_PER_S, function);
        watch = settings == NULL
                    ? NULL
                    : call_python("pycoronet._stall", "start_watch", settings);
        Py_XDECREF(settings);
        if (watch == NULL) {
            return NULL;
        }
    }
    hub_end_stall_watch(hub, true);
    hub->stall_watch = watch;
    Py_RETURN_NONE;
}

// --- The threads that look at the hub ------------------------------------------------------

// Calls a function of the thread behind PYCORONET_INSPECT, and reports what fails.
static void
call_inspection(const char *function, PyObject *subject)
{
    PyObject *module = PyImport_ImportModule("pycoronet._inspection");
    PyObject *result = module == NULL ? NULL : call_attribute(module, function, NULL);
    if (result == NULL) {
        report_exception(subject);
    }
    Py_XDECREF(module);
    Py_XDECREF(result);
}

void
inspect_stop(void)
{
    call_inspection("stop", Py_None);
}

void
hub_end_stall_watch(HubObject *hub, bool waits)
{
    PyObject *watch = hub->stall_watch;
    hub->stall_watch = NULL;
    if (watch == NULL) {
        return;
    }
    PyObject *exception = take_exception();
    PyObject *result = call_attribute(watch, "close", waits ? Py_True : Py_False);
    if (result == NULL) {
        report_exception((PyObject *)hub);
    }
    Py_XDECREF(result);
    Py_DECREF(watch);
    restore_exception(exception);
}

unsigned
hub_wanted_watchers(const HubObject *hub)
{
    const char *directory = getenv("PYCORONET_INSPECT");
    bool is_inspected = directory != NULL && directory[0] != '\0';
    return is_inspected || hub->stall_watch != NULL ? HUB_NEEDS_WATCHERS : 0;
}

void
hub_start_watchers(HubObject *hub)
{
    if (hub->stall_watch != NULL) {
        PyObject *result = call_attribute(hub->stall_watch, "start", NULL);
        if (result == NULL) {
            report_exception((PyObject *)hub); // not reached: no more threads
        }
        Py_XDECREF(result);
    }
    call_inspection("start", (PyObject *)hub);
}

PyMethodDef hub_inspect_methods[] = {
    {"waiters", (PyCFunction)Hub_waiters, METH_NOARGS, waiters_doc},
    {"set_stall_limit", (PyCFunction)(void (*)(void))Hub_set_stall_limit,
     METH_FASTCALL | METH_KEYWORDS, set_stall_limit_doc},
    {"_list_tasks", (PyCFunction)Hub_list_tasks, METH_NOARGS,
     PyDoc_STR("_list_tasks($self, /)\n--\n\n"
               "The rows that pycoronet/_waits.py makes words of. For any thread.")},
    {"_progress", (PyCFunction)Hub_progress, METH_NOARGS, progress_doc},
    {"_holder", (PyCFunction)Hub_holder, METH_NOARGS, holder_doc},
    {"_measure_cpu", (PyCFunction)Hub_measure_cpu, METH_O, measure_cpu_doc},
    {NULL, NULL, 0, NULL},
};
