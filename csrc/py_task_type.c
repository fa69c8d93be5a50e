// py_task_type.c: the Task type: joining, cancelling, its name, and what the module offers
// of tasks: spawn, spawn_later, current, sleep.

#include "py_task.h"

#include <structmember.h>

#include "py_convert.h"
#include "py_timer.h"

// --- Joining ------------------------------------------------------------------------

// Waits until [task] has ended. 0, or -1 with an exception.
static int
wait_until_ended(TaskObject *task, int64_t timeout_ns, const char *operation)
{
    HubObject *hub = task->hub;
    if (hub_check_thread(hub, "a Task") < 0) {
        return -1;
    }
    if (task_has_ended(task)) {
        return hub_count_operation(hub);
    }
    struct waiter *waiter = hub_hold_waiter(hub, operation);
    if (waiter == NULL) {
        return -1;
    }
    if (task->is_main || waiter->task == task) {
        hub_release_waiter(hub, waiter);
        PyErr_SetString(PyExc_RuntimeError, task->is_main
                                                ? "the main program cannot be joined"
                                                : "a task cannot join itself");
        return -1;
    }
    int status = hub_park_held(hub, waiter, NULL, &task->joiners, WAITS_FOR_OTHERS,
                               timeout_ns, operation, (PyObject *)task);
    if (status == WOKEN_TIMEOUT) {
        PyErr_Format(PyExc_TimeoutError, "%s: the task has not ended in time", operation);
        return -1;
    }
    return status < 0 ? -1 : 0;
}

static const char *const timeout_name[] = {"timeout", NULL};

// Apart from the wait, which keeps the frames that led to it.
static int
parse_timeout(const struct parameters *parameters, PyObject *const *arguments,
              Py_ssize_t count, PyObject *keyword_names, int64_t *timeout_ns)
{
    PyObject *timeout;
    if (parse_arguments(parameters, arguments, count, keyword_names, &timeout) < 0) {
        return -1;
    }
    return convert_timeout(timeout, timeout_ns);
}

PyDoc_STRVAR(
    Task_join_doc,
    "join($self, /, timeout=None)\n--\n\n"
    "Wait until the task has ended, however it ends.\n\n"
    "timeout: seconds, None waits for ever, 0 only looks.\n\n"
    "Raises TimeoutError if it has not ended by then, RuntimeError for the task itself,\n"
    "from a hub callback or from another thread. May switch. Any number of tasks may join.\n"
    "What the task raised is not raised here; get() does that.");

static PyObject *
Task_join(TaskObject *task, PyObject *const *arguments, Py_ssize_t count,
          PyObject *keyword_names)
{
    static const struct parameters parameters = {"join", timeout_name, 0, 1};
    int64_t timeout_ns;
    if (parse_timeout(&parameters, arguments, count, keyword_names, &timeout_ns) < 0 ||
        wait_until_ended(task, timeout_ns, "join") < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    Task_get_doc,
    "get($self, /, timeout=None)\n--\n\n"
    "Wait until the task has ended; return its result or raise what it raised.\n\n"
    "timeout: seconds, None waits for ever, 0 only looks.\n\n"
    "Raises TimeoutError if it has not ended by then, the task's own exception, or\n"
    "Cancelled if it was cancelled; otherwise as join(). May switch.");

static PyObject *
Task_get(TaskObject *task, PyObject *const *arguments, Py_ssize_t count,
         PyObject *keyword_names)
{
    static const struct parameters parameters = {"get", timeout_name, 0, 1};
    int64_t timeout_ns;
    if (parse_timeout(&parameters, arguments, count, keyword_names, &timeout_ns) < 0 ||
        wait_until_ended(task, timeout_ns, "get") < 0) {
        return NULL;
    }
    if (task->state != TASK_SUCCEEDED) {
        PyErr_SetObject((PyObject *)Py_TYPE(task->value), task->value);
        return NULL;
    }
    return Py_NewRef(task->value);
}

// --- Other methods ------------------------------------------------------------------

PyDoc_STRVAR(
    Task_cancel_doc,
    "cancel($self, /, reason=None)\n--\n\n"
    "Ask the task to stop: the wait it is in, and each later one, raises Cancelled.\n\n"
    "reason: any object; it becomes the exception's .reason.\n\n"
    "A task that has not begun never begins. Inside shield() the request waits. An\n"
    "operation that has completed is not also cancelled. Never switches; does nothing for a\n"
    "task that has ended. Raises RuntimeError from another thread.");

static PyObject *
Task_cancel(TaskObject *task, PyObject *const *arguments, Py_ssize_t count,
            PyObject *keyword_names)
{
    static const char *const names[] = {"reason", NULL};
    static const struct parameters parameters = {"cancel", names, 0, 1};
    PyObject *reason;
    if (parse_arguments(&parameters, arguments, count, keyword_names, &reason) < 0 ||
        hub_check_thread(task->hub, "a Task") < 0) {
        return NULL;
    }
    task_cancel(task, reason);
    Py_RETURN_NONE;
}

static PyObject *
Task_get_name(TaskObject *task, void *unused)
{
    (void)unused;
    if (task->name == NULL) {
        PyObject *function_name = NULL;
        if (task->function != NULL) {
            function_name = get_attribute(task->function, "__qualname__");
        }
        if (function_name == NULL) {
            PyErr_Clear();
            task->name = PyUnicode_FromFormat("task-%lu", task->number);
        }
        else {
            task->name = PyUnicode_FromFormat("%S-%lu", function_name, task->number);
            Py_DECREF(function_name);
        }
    }
    return Py_XNewRef(task->name);
}

static int
Task_set_name(TaskObject *task, PyObject *name, void *unused)
{
    (void)unused;
    if (name == NULL || !PyUnicode_Check(name)) {
        PyErr_SetString(PyExc_TypeError, "a task's name must be a str");
        return -1;
    }
    Py_XSETREF(task->name, Py_NewRef(name));
    return 0;
}

static PyObject *
Task_get_done(TaskObject *task, void *unused)
{
    (void)unused;
    return PyBool_FromLong(task_has_ended(task));
}

static PyObject *
Task_get_cancel_reason(TaskObject *task, void *unused)
{
    (void)unused;
    return Py_NewRef(task->cancel_reason == NULL ? Py_None : task->cancel_reason);
}

static PyObject *
Task_get_exception(TaskObject *task, void *unused)
{
    (void)unused;
    return Py_NewRef(task->state > TASK_SUCCEEDED ? task->value : Py_None);
}

PyObject *
task_describe(TaskObject *task)
{
    PyObject *name = Task_get_name(task, NULL);
    if (name == NULL) {
        return NULL;
    }
    PyObject *text = PyUnicode_FromFormat("Task %R", name);
    Py_DECREF(name);
    return text;
}

static PyObject *
Task_repr(TaskObject *task)
{
    PyObject *text = task_describe(task);
    PyObject *state = text == NULL ? NULL : task_describe_state(task);
    PyObject *result = state == NULL ? NULL : PyUnicode_FromFormat("<%U%U>", text, state);
    Py_XDECREF(text);
    Py_XDECREF(state);
    return result;
}

// --- Module functions ----------------------------------------------------------------

PyObject *
task_spawn(PyObject *module, PyObject *const *arguments, Py_ssize_t count,
           PyObject *keyword_names)
{
    if (count < 1) {
        PyErr_SetString(PyExc_TypeError, "spawn() missing required argument 'function'");
        return NULL;
    }
    HubObject *hub = hub_get(module_state_of(module));
    if (hub == NULL) {
        return NULL;
    }
    TaskObject *task =
        task_new(hub, arguments[0], arguments + 1, count - 1, keyword_names);
    if (task != NULL) {
        task_queue(task);
    }
    return (PyObject *)task;
}

PyObject *
task_spawn_later(PyObject *module, PyObject *const *arguments, Py_ssize_t count,
                 PyObject *keyword_names)
{
    if (count < 2) {
        PyErr_SetString(PyExc_TypeError,
                        "spawn_later() needs seconds and then something callable");
        return NULL;
    }
    HubObject *hub = hub_get(module_state_of(module));
    uint64_t delay_ns;
    if (hub == NULL || convert_delay(arguments[0], &delay_ns) < 0) {
        return NULL;
    }
    TaskObject *task =
        task_new(hub, arguments[1], arguments + 2, count - 2, keyword_names);
    if (task != NULL) {
        task_queue_later(task, delay_ns);
    }
    return (PyObject *)task;
}

PyObject *
task_spawn_handler(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    struct module_state *state = module_state_of(module);
    if (count != 3 || !Py_IS_TYPE(arguments[1], state->conn_type)) {
        PyErr_SetString(PyExc_TypeError,
                        "spawn_handler() takes (handler, conn, address)");
        return NULL;
    }
    HubObject *hub = hub_get(state);
    if (hub == NULL) {
        return NULL;
    }
    TaskObject *task = task_new(hub, arguments[0], arguments + 1, 2, NULL);
    if (task != NULL) {
        task->connection = Py_NewRef(arguments[1]);
        task_queue(task);
    }
    return (PyObject *)task;
}

PyObject *
task_find_current(HubObject *hub)
{
    TaskObject *task;
    if (hub_running_task(hub, &task) < 0) {
        return NULL;
    }
    return Py_NewRef(task == NULL ? Py_None : (PyObject *)task);
}

PyObject *
task_current(PyObject *module, PyObject *unused)
{
    (void)unused;
    HubObject *hub = hub_get(module_state_of(module));
    return hub == NULL ? NULL : task_find_current(hub);
}

PyObject *
task_sleep(PyObject *module, PyObject *const *arguments, Py_ssize_t count,
           PyObject *keyword_names)
{
    static const char *const names[] = {"seconds", NULL};
    static const struct parameters parameters = {"sleep", names, 0, 1};
    PyObject *seconds;
    int64_t delay_ns = 0;
    if (parse_arguments(&parameters, arguments, count, keyword_names, &seconds) < 0 ||
        (seconds != NULL && convert_timeout(seconds, &delay_ns) < 0)) {
        return NULL;
    }
    HubObject *hub = hub_get(module_state_of(module));
    if (hub == NULL) {
        return NULL;
    }
    if (delay_ns == 0) {
        if (hub_yield(hub, "sleep") < 0) {
            return NULL;
        }
        Py_RETURN_NONE;
    }
    int status = hub_park(hub, NULL, NULL, WAITS_FOR_TIME, delay_ns, "sleep", seconds);
    if (status < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

// --- The type -------------------------------------------------------------------------

static int
Task_traverse(TaskObject *task, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(task));
    Py_VISIT(task->hub);
    Py_VISIT(task->function);
    Py_VISIT(task->arguments);
    Py_VISIT(task->keyword_names);
    Py_VISIT(task->context);
    Py_VISIT(task->connection);
    Py_VISIT(task->value);
    Py_VISIT(task->cancel_reason);
    Py_VISIT(task->scope);
    Py_VISIT(task->group);
    return task_visit_links(task, visit, arg);
}

static int
Task_clear(TaskObject *task)
{
    Py_CLEAR(task->function);
    Py_CLEAR(task->arguments);
    Py_CLEAR(task->keyword_names);
    Py_CLEAR(task->context);
    Py_CLEAR(task->connection);
    Py_CLEAR(task->value);
    Py_CLEAR(task->cancel_reason);
    Py_CLEAR(task->scope);
    list_remove(&task->group_link);
    Py_CLEAR(task->group);
    task_drop_links(task);
    local_owner_free(&task->locals);
    return 0;
}

static void
Task_dealloc(TaskObject *task)
{
    PyTypeObject *type = Py_TYPE(task);
    PyObject_GC_UnTrack(task);
    if (task->weak_references != NULL) {
        PyObject_ClearWeakRefs((PyObject *)task);
    }
    if (task->hub->current_task == task) {
        // A greenlet that was nested in it has outlived it.
        task->hub->current_task = NULL;
        task->hub->current_greenlet = NULL;
    }
    // A task that was started is owned until it ends.
    assert(!list_is_linked(&task->hub_link));
    assert(!timer_is_armed(&task->waiter.timer));
    timer_wheel_unlink(&task->hub->reactor.timers, &task->waiter.timer);
    Task_clear(task);
    Py_CLEAR(task->name);
    Py_CLEAR(task->hub);
    LIVE_COUNT(LIVE_TASKS, -1);
    type->tp_free(task);
    Py_DECREF(type);
}

// In asyncio code: await task. Python code knows how asyncio waits.
static PyObject *
Task_await(PyObject *task)
{
    PyObject *module = PyImport_ImportModule("pycoronet.aio");
    PyObject *wait = module == NULL ? NULL : get_attribute(module, "_await_task");
    PyObject *iterator = wait == NULL ? NULL : PyObject_CallOneArg(wait, task);
    Py_XDECREF(module);
    Py_XDECREF(wait);
    return iterator;
}

PyDoc_STRVAR(class_getitem_doc,
             "__class_getitem__($type, item, /)\n--\n\nFor types: Task[int].");

static PyMethodDef Task_methods[] = {
    {"join", (PyCFunction)(void (*)(void))Task_join, METH_FASTCALL | METH_KEYWORDS,
     Task_join_doc},
    {"get", (PyCFunction)(void (*)(void))Task_get, METH_FASTCALL | METH_KEYWORDS,
     Task_get_doc},
    {"cancel", (PyCFunction)(void (*)(void))Task_cancel, METH_FASTCALL | METH_KEYWORDS,
     Task_cancel_doc},
    {"link", (PyCFunction)(void (*)(void))Task_link, METH_FASTCALL | METH_KEYWORDS,
     task_link_doc},
    {"unlink", (PyCFunction)Task_unlink, METH_O, task_unlink_doc},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, class_getitem_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Task_getset[] = {
    {"name", (getter)Task_get_name, (setter)Task_set_name,
     PyDoc_STR("A str for reports; made from the function's name unless it is set."),
     NULL},
    {"done", (getter)Task_get_done, NULL, PyDoc_STR("True once the task has ended."),
     NULL},
    {"cancel_reason", (getter)Task_get_cancel_reason, NULL,
     PyDoc_STR("The last reason that cancel() was given, or None."), NULL},
    {"exception", (getter)Task_get_exception, NULL,
     PyDoc_STR(
         "What the task ended with, Cancelled included; None if it has succeeded or\n"
         "has not ended."),
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef Task_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(TaskObject, weak_references), READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(
    Task_doc,
    "A coroutine: made by spawn(), ended by its function's return.\n\n"
    "In asyncio code on pycoronet's loop, `await task` does what get() does elsewhere.\n\n"
    "An exception its function raises is kept for get(); if nobody is joining the task when\n"
    "it ends, it is also reported through sys.unraisablehook. KeyboardInterrupt and\n"
    "SystemExit go to the main program.\n\n"
    "Source: libpcl's coroutine_t; to wait for one and to cancel it is pycoronet's own.");

static PyType_Slot Task_slots[] = {
    {Py_tp_doc, (void *)Task_doc},   {Py_tp_dealloc, Task_dealloc},
    {Py_tp_traverse, Task_traverse}, {Py_tp_clear, Task_clear},
    {Py_tp_repr, Task_repr},         {Py_tp_methods, Task_methods},
    {Py_tp_getset, Task_getset},     {Py_tp_members, Task_members},
    {Py_am_await, Task_await},       {0, NULL},
};

static PyType_Spec Task_spec = {
    .name = "pycoronet.Task",
    .basicsize = sizeof(TaskObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Task_slots,
};

PyTypeObject *
task_type_new(PyObject *module)
{
    return add_type(module, &Task_spec);
}
