// py_task.c: the Task type: a coroutine's function, arguments, context and outcome.
//
// References: a queued task is owned by its start record, a running one by its worker;
// so a task nobody else refers to lives until it ends. Its arguments and context are
// dropped then.

#include "py_task.h"

#include <structmember.h>

#include "greenlet_bridge.h"
#include "py_conn.h"
#include "py_convert.h"

// --- Making -------------------------------------------------------------------------

static TaskObject *
allocate_task(HubObject *hub)
{
    TaskObject *task = (TaskObject *)hub->state->task_type->tp_alloc(hub->state->task_type, 0);
    if (task == NULL) {
        return NULL;
    }
    task->hub = (HubObject *)Py_NewRef((PyObject *)hub);
    task->number = ++hub->state->task_count;
    list_init(&task->waiters);
    list_init(&task->joiners);
    waiter_init(&task->waiter);
    return task;
}

TaskObject *
task_new(HubObject *hub, PyObject *function, PyObject *const *arguments,
         Py_ssize_t positional_count, PyObject *keyword_names)
{
    if (!PyCallable_Check(function)) {
        PyErr_Format(PyExc_TypeError, "a task needs something callable, not %s",
                     Py_TYPE(function)->tp_name);
        return NULL;
    }
    TaskObject *task = allocate_task(hub);
    if (task == NULL) {
        return NULL;
    }
    Py_ssize_t count = positional_count;
    if (keyword_names != NULL) {
        count += PyTuple_GET_SIZE(keyword_names);
    }
    task->function = Py_NewRef(function);
    task->keyword_names = Py_XNewRef(keyword_names);
    task->context = PyContext_CopyCurrent();
    task->arguments = pack_tuple(arguments, count);
    if (task->context == NULL || task->arguments == NULL) {
        Py_DECREF(task);
        return NULL;
    }
    task->state = TASK_CREATED;
    return task;
}

TaskObject *
task_new_main(HubObject *hub)
{
    TaskObject *task = allocate_task(hub);
    if (task == NULL) {
        return NULL;
    }
    task->is_main = true;
    task->has_begun = true;
    task->state = TASK_RUNNING;
    task->name = PyUnicode_FromString("main program");
    if (task->name == NULL) {
        Py_DECREF(task);
        return NULL;
    }
    return task;
}

void
task_queue(TaskObject *task)
{
    struct waiter *waiter = &task->waiter;
    waiter->kind = WAITS_TO_START;
    waiter->status = WOKEN_READY;
    waiter->task = (TaskObject *)Py_NewRef((PyObject *)task);
    task->state = TASK_QUEUED;
    // From here on it will end by itself; nobody has to wait for one never entered.
    list_append(&task->hub->tasks, &task->hub_link);
    task->hub->task_count++;
    list_append(&task->hub->ready, &waiter->link);
}

// --- Running ------------------------------------------------------------------------

static PyObject *
call_function(TaskObject *task)
{
    Py_ssize_t count = PyTuple_GET_SIZE(task->arguments);
    if (task->keyword_names != NULL) {
        count -= PyTuple_GET_SIZE(task->keyword_names);
    }
    return PyObject_Vectorcall(task->function, &PyTuple_GET_ITEM(task->arguments, 0),
                               (size_t)count, task->keyword_names);
}

void
task_run(TaskObject *task)
{
    task->state = TASK_RUNNING;
    ScopeObject *scope;
    if (task_is_cancel_due(task, &scope)) {
        // Cancelled before it began: its function is never called.
        task_raise_cancelled(task, scope);
        task_finish(task, NULL);
        return;
    }
    task->has_begun = true;
    if (PyContext_Enter(task->context) < 0) {
        task_finish(task, NULL);
        return;
    }
    PyObject *value = call_function(task);
    PyObject *exception = value == NULL ? take_exception() : NULL;
    if (PyContext_Exit(task->context) < 0) {
        report_exception((PyObject *)task);
    }
    if (exception != NULL) {
        restore_exception(exception);
    }
    task_finish(task, value);
}

// Keeps the exception that is set as the task's outcome, and tells whom it concerns.
static void
keep_exception(TaskObject *task)
{
    HubObject *hub = task->hub;
    if (PyErr_ExceptionMatches(hub->state->Cancelled) ||
        PyErr_ExceptionMatches(greenlet_exit_exception())) {
        task->state = TASK_CANCELLED;
        task->value = take_exception();
        return;
    }
    task->state = TASK_FAILED;
    bool ends_program = PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) ||
                        PyErr_ExceptionMatches(PyExc_SystemExit);
    task->value = take_exception();
    if (ends_program && task == hub->orphan) {
        return;                  // the end of the process, with its status
    }
    if (ends_program) {
        hub_interrupt_main(hub, Py_NewRef(task->value));
    } else if (list_is_empty(&task->joiners)) {
        restore_exception(Py_NewRef(task->value));
        report_exception((PyObject *)task);
    }
}

// Closes the connection a server gave the task, whatever became of its handler.
static void
close_connection(TaskObject *task)
{
    PyObject *connection = task->connection;
    task->connection = NULL;
    if (connection != NULL) {
        if (conn_close((SkConnObject *)connection) < 0) {
            report_exception((PyObject *)task);
        }
        Py_DECREF(connection);
    }
}

void
task_finish(TaskObject *task, PyObject *value)
{
    HubObject *hub = task->hub;
    if (value != NULL) {
        task->state = TASK_SUCCEEDED;
        task->value = value;
    } else {
        keep_exception(task);
    }
    close_connection(task);
    if (list_is_linked(&task->hub_link)) {
        list_remove(&task->hub_link);
        hub->task_count--;
    }
    struct list_node *node;
    while ((node = list_take_first(&task->joiners)) != NULL) {
        waiter_wake(hub, CONTAINER_OF(node, struct waiter, link), WOKEN_READY);
    }
    if (task == hub->orphan) {
        hub_end_orphaned_process(task);
    }
    if (hub->task_count == 0) {
        while ((node = list_take_first(&hub->idle_watchers)) != NULL) {
            waiter_wake(hub, CONTAINER_OF(node, struct waiter, link), WOKEN_READY);
        }
    }
    task_leave_scopes(task);
    // Last, for what goes here may run code. The function stays: the name is made of it.
    Py_CLEAR(task->arguments);
    Py_CLEAR(task->keyword_names);
    Py_CLEAR(task->context);
}

bool
task_was_killed(TaskObject *task)
{
    return task->state == TASK_CANCELLED &&
           PyErr_GivenExceptionMatches(task->value, greenlet_exit_exception());
}

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
    TaskObject *running;
    if (hub_running_task(hub, &running) < 0) {
        return -1;
    }
    if (task->is_main || running == task) {
        PyErr_SetString(PyExc_RuntimeError, task->is_main
                                                ? "the main program cannot be joined"
                                                : "a task cannot join itself");
        return -1;
    }
    struct waiter *waiter = waiter_acquire(hub, operation);
    if (waiter == NULL) {
        return -1;
    }
    list_append(&task->joiners, &waiter->link);
    int status = waiter_park(hub, waiter, WAITS_FOR_OTHERS, timeout_ns, operation,
                             (PyObject *)task);
    waiter_release(hub, waiter);
    if (status == WOKEN_TIMEOUT) {
        PyErr_Format(PyExc_TimeoutError, "%s: the task has not ended in time", operation);
        return -1;
    }
    return status < 0 ? -1 : 0;
}

static int
wait_with_arguments(TaskObject *task, PyObject *const *arguments, Py_ssize_t count,
                    PyObject *keyword_names, const char *operation)
{
    static const char *const names[] = {"timeout", NULL};
    const struct parameters parameters = {operation, names, 0, 1};
    PyObject *timeout;
    int64_t timeout_ns;
    if (parse_arguments(&parameters, arguments, count, keyword_names, &timeout) < 0 ||
        convert_timeout(timeout, &timeout_ns) < 0) {
        return -1;
    }
    return wait_until_ended(task, timeout_ns, operation);
}

PyDoc_STRVAR(Task_join_doc,
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
    if (wait_with_arguments(task, arguments, count, keyword_names, "join") < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Task_get_doc,
"get($self, /, timeout=None)\n--\n\n"
"Wait until the task has ended; return its result or raise what it raised.\n\n"
"timeout: seconds, None waits for ever, 0 only looks.\n\n"
"Raises TimeoutError if it has not ended by then, the task's own exception, or\n"
"Cancelled if it was cancelled; otherwise as join(). May switch.");

static PyObject *
Task_get(TaskObject *task, PyObject *const *arguments, Py_ssize_t count,
         PyObject *keyword_names)
{
    if (wait_with_arguments(task, arguments, count, keyword_names, "get") < 0) {
        return NULL;
    }
    if (task->state != TASK_SUCCEEDED) {
        PyErr_SetObject((PyObject *)Py_TYPE(task->value), task->value);
        return NULL;
    }
    return Py_NewRef(task->value);
}

// --- Other methods ------------------------------------------------------------------

PyDoc_STRVAR(Task_cancel_doc,
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
        } else {
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
    static const char *const state_names[] = {"not begun", "queued", "running",
                                              "done", "failed", "cancelled"};
    PyObject *text = task_describe(task);
    if (text == NULL) {
        return NULL;
    }
    PyObject *result = PyUnicode_FromFormat("<%U %s>", text, state_names[task->state]);
    Py_DECREF(text);
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
    TaskObject *task = task_new(hub, arguments[0], arguments + 1, count - 1, keyword_names);
    if (task != NULL) {
        task_queue(task);
    }
    return (PyObject *)task;
}

PyObject *
task_spawn_handler(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    struct module_state *state = module_state_of(module);
    if (count != 3 || !Py_IS_TYPE(arguments[1], state->conn_type)) {
        PyErr_SetString(PyExc_TypeError, "spawn_handler() takes (handler, conn, address)");
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
task_current(PyObject *module, PyObject *unused)
{
    (void)unused;
    HubObject *hub = hub_get(module_state_of(module));
    TaskObject *task;
    if (hub == NULL || hub_running_task(hub, &task) < 0) {
        return NULL;
    }
    return Py_NewRef(task == NULL ? Py_None : (PyObject *)task);
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
    struct waiter *waiter = waiter_acquire(hub, "sleep");
    if (waiter == NULL) {
        return NULL;
    }
    int status = waiter_park(hub, waiter, WAITS_FOR_TIME, delay_ns, "sleep", seconds);
    waiter_release(hub, waiter);
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
    return 0;
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
    timer_wheel_unlink(&task->hub->reactor.timers, &task->waiter.timer);
    Task_clear(task);
    Py_CLEAR(task->name);
    Py_CLEAR(task->hub);
    type->tp_free(task);
    Py_DECREF(type);
}

static PyMethodDef Task_methods[] = {
    {"join", (PyCFunction)(void (*)(void))Task_join, METH_FASTCALL | METH_KEYWORDS,
     Task_join_doc},
    {"get", (PyCFunction)(void (*)(void))Task_get, METH_FASTCALL | METH_KEYWORDS,
     Task_get_doc},
    {"cancel", (PyCFunction)(void (*)(void))Task_cancel, METH_FASTCALL | METH_KEYWORDS,
     Task_cancel_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Task_getset[] = {
    {"name", (getter)Task_get_name, (setter)Task_set_name,
     PyDoc_STR("A str for reports; made from the function's name unless it is set."), NULL},
    {"done", (getter)Task_get_done, NULL, PyDoc_STR("True once the task has ended."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef Task_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(TaskObject, weak_references), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(Task_doc,
"A coroutine: made by spawn(), ended by its function's return.\n\n"
"An exception its function raises is kept for get(); if nobody is joining the task when\n"
"it ends, it is also reported through sys.unraisablehook. KeyboardInterrupt and\n"
"SystemExit go to the main program. Answers to pcl's coroutine_t.");

static PyType_Slot Task_slots[] = {
    {Py_tp_doc, (void *)Task_doc},
    {Py_tp_dealloc, Task_dealloc},
    {Py_tp_traverse, Task_traverse},
    {Py_tp_clear, Task_clear},
    {Py_tp_repr, Task_repr},
    {Py_tp_methods, Task_methods},
    {Py_tp_getset, Task_getset},
    {Py_tp_members, Task_members},
    {0, NULL},
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
