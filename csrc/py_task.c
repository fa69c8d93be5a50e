// py_task.c: a coroutine's life: function, arguments and context in, outcome out.
//
// References: a queued task is owned by its start record, a running one by its worker;
// so a task nobody else refers to lives until it ends. Its arguments and context are
// dropped then.

#include "py_task.h"

#include "greenlet_bridge.h"
#include "py_conn.h"
#include "py_convert.h"

// --- Making -------------------------------------------------------------------------

static TaskObject *
allocate_task(HubObject *hub)
{
    TaskObject *task =
        (TaskObject *)hub->state->task_type->tp_alloc(hub->state->task_type, 0);
    if (task == NULL) {
        return NULL;
    }
    LIVE_COUNT(LIVE_TASKS, 1);
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
    task->state = TASK_RUNNING;
    task->name = PyUnicode_FromString("main program");
    if (task->name == NULL) {
        Py_DECREF(task);
        return NULL;
    }
    return task;
}

// Has it wait for its start.
static void
await_start(TaskObject *task, enum waiter_status status)
{
    struct waiter *waiter = &task->waiter;
    waiter->kind = WAITS_TO_START;
    waiter->status = (uint8_t)status;
    waiter->task = (TaskObject *)Py_NewRef((PyObject *)task);
    task->state = TASK_QUEUED;
    // From here on it will end by itself; nobody has to wait for one never entered.
    list_append(&task->hub->tasks, &task->hub_link);
    task->hub->task_count++;
}

void
task_queue(TaskObject *task)
{
    await_start(task, WOKEN_READY);
    list_append(&task->hub->ready, &task->waiter.link);
}

void
task_queue_later(TaskObject *task, uint64_t delay_ns)
{
    struct waiter *waiter = &task->waiter;
    await_start(task, WAITER_PARKED);
    waiter->operation = "spawn_later";
    waiter->subject = NULL;
    list_append(&task->waiters, &waiter->task_link);
    reactor_arm(&task->hub->reactor, &waiter->timer, delay_ns);
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
    if (PyContext_Enter(task->context) < 0) {
        task_finish(task, NULL);
        return;
    }
    PyObject *value = call_function(task);
    PyObject *exception = value == NULL ? take_exception() : NULL;
    if (PyContext_Exit(task->context) < 0) {
        // not reached: somebody has left another context entered
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
        return; // the end of the process, with its status
    }
    if (ends_program) {
        hub_interrupt_main(hub, Py_NewRef(task->value));
    }
    else if (list_is_empty(&task->joiners) && !task_links_handle_failure(task) &&
             !group_takes_failure(task)) {
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
    }
    else {
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
    if (task->group != NULL) {
        group_note_end(task);
    }
    if (task->links != NULL) {
        task_queue_links(task);
    }
    if (task == hub->orphan) {
        hub_end_orphaned_process(task);
    }
    if (hub->task_count == 0) {
        hub_note_end(hub);
    }
    task_leave_scopes(task);
    // Last, for what goes here may run code. The function stays: the name is made of it.
    Py_CLEAR(task->arguments);
    Py_CLEAR(task->keyword_names);
    Py_CLEAR(task->context);
    Py_CLEAR(task->group);
    local_owner_free(&task->locals);
}

bool
task_was_killed(TaskObject *task)
{
    return task->state == TASK_CANCELLED &&
           PyErr_GivenExceptionMatches(task->value, greenlet_exit_exception());
}
