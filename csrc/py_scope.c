// py_scope.c: cancellation, and the scopes that bound it: timeout(), move_on_after(), shield().
//
// Cancellation is level-triggered: once a task is cancelled, or a scope around it has
// passed its deadline, every wait that is not shielded raises Cancelled, until the block
// concerned has been left. It is delivered only where the task would park or yield.
// timeout() turns the Cancelled of its own deadline into TimeoutError at its exit, and
// move_on_after() ends with it; so a TimeoutError of the block itself is never taken for the
// scope's.

#include "py_task.h"

#include <errno.h>

#include "py_convert.h"

enum scope_kind {
    SCOPE_TIMEOUT, // ends with TimeoutError
    SCOPE_MOVE_ON, // just ends
    SCOPE_SHIELD,
};

struct ScopeObject {
    PyObject_HEAD
    TaskObject *task;   // owned while entered; NULL otherwise
    ScopeObject *outer; // owned while entered; the scope around it, NULL = none
    PyObject *reason;   // owned; what cancel() was given, or NULL
    struct timer timer; // its deadline
    int64_t limit_ns;   // from entering; -1 = none
    uint8_t kind;       // enum scope_kind
    bool has_expired;   // its deadline has passed, or cancel() was called
    bool was_cancelled; // by cancel()
};

// --- Cancellation ----------------------------------------------------------------------

bool
task_is_cancel_due(TaskObject *task, ScopeObject **scope)
{
    *scope = NULL;
    if (task->is_main && task->hub->is_closing) {
        return false; // it has to see the tasks off, cancelled or not
    }
    for (ScopeObject *s = task->scope; s != NULL; s = s->outer) {
        if (s->kind == SCOPE_SHIELD && !s->has_expired) {
            return false;
        }
        if (s->kind != SCOPE_SHIELD && s->has_expired) {
            *scope = s;
            return true;
        }
    }
    return task->is_cancelled;
}

void
task_deliver_cancel(TaskObject *task)
{
    ScopeObject *scope;
    if (!task_is_cancel_due(task, &scope)) {
        return;
    }
    for (struct list_node *node = task->waiters.next; node != &task->waiters;
         node = node->next) {
        // Waking calls nothing, so the list stays as it is.
        waiter_wake(task->hub, CONTAINER_OF(node, struct waiter, task_link),
                    WOKEN_CANCELLED);
    }
}

void
task_cancel(TaskObject *task, PyObject *reason)
{
    if (task_has_ended(task)) {
        return;
    }
    task->is_cancelled = true;
    task_deliver_cancel(task);
    if (reason != NULL && reason != Py_None) {
        Py_XSETREF(task->cancel_reason, Py_NewRef(reason)); // may run code
    }
}

bool
task_count_refusal(TaskObject *task)
{
    if (task->refusals < CANCEL_LIMIT && ++task->refusals == CANCEL_LIMIT) {
        PyErr_Format(
            PyExc_RuntimeError,
            "%R has caught Cancelled %d times in a row and goes on waiting: from "
            "now on each time takes %d ms",
            (PyObject *)task, CANCEL_LIMIT, CANCEL_PAUSE_NS / 1000000);
        report_exception((PyObject *)task);
    }
    return task->refusals == CANCEL_LIMIT;
}

int
task_raise_cancelled(TaskObject *task, ScopeObject *scope)
{
    PyObject *reason = scope == NULL ? task->cancel_reason : scope->reason;
    PyObject *exception = PyObject_CallFunctionObjArgs(
        task->hub->state->Cancelled, reason == NULL ? Py_None : reason,
        scope == NULL ? Py_None : (PyObject *)scope, NULL);
    raise_object(exception);
    return -1;
}

void
task_stop_scopes(TaskObject *task)
{
    for (ScopeObject *scope = task->scope; scope != NULL; scope = scope->outer) {
        timer_wheel_unlink(&task->hub->reactor.timers, &scope->timer);
    }
}

// --- The scope type ---------------------------------------------------------------------

static void
expire_scope(ScopeObject *scope)
{
    scope->has_expired = true;
    task_deliver_cancel(scope->task);
}

void
scope_cancel(ScopeObject *scope, PyObject *reason)
{
    if (scope->task == NULL || scope->has_expired) {
        return;
    }
    timer_wheel_unlink(&scope->task->hub->reactor.timers, &scope->timer);
    scope->was_cancelled = true;
    scope->reason = Py_XNewRef(reason);
    expire_scope(scope);
}

static void
pass_deadline(struct timer *timer)
{
    expire_scope(CONTAINER_OF(timer, ScopeObject, timer));
}

static PyObject *
new_scope(struct module_state *state, enum scope_kind kind, PyObject *seconds)
{
    int64_t limit_ns;
    if (convert_timeout(seconds, &limit_ns) < 0) {
        return NULL;
    }
    ScopeObject *scope = (ScopeObject *)state->scope_type->tp_alloc(state->scope_type, 0);
    if (scope == NULL) {
        return NULL;
    }
    scope->kind = (uint8_t)kind;
    scope->limit_ns = limit_ns;
    timer_init(&scope->timer, pass_deadline);
    return (PyObject *)scope;
}

PyObject *
scope_timeout(PyObject *module, PyObject *seconds)
{
    return new_scope(module_state_of(module), SCOPE_TIMEOUT, seconds);
}

PyObject *
scope_move_on_after(PyObject *module, PyObject *seconds)
{
    return new_scope(module_state_of(module), SCOPE_MOVE_ON, seconds);
}

PyObject *
scope_shield(PyObject *module, PyObject *const *arguments, Py_ssize_t count,
             PyObject *keyword_names)
{
    static const char *const names[] = {"seconds", NULL};
    static const struct parameters parameters = {"shield", names, 0, 1};
    PyObject *seconds;
    if (parse_arguments(&parameters, arguments, count, keyword_names, &seconds) < 0) {
        return NULL;
    }
    return new_scope(module_state_of(module), SCOPE_SHIELD, seconds);
}

TaskObject *
scope_find_task(struct module_state *state)
{
    HubObject *hub = hub_get(state);
    TaskObject *task;
    if (hub == NULL || hub_running_task(hub, &task) < 0) {
        return NULL;
    }
    if (task == NULL) {
        PyErr_SetString(PyExc_RuntimeError,
                        hub->is_in_guest
                            ? "a step of asyncio has no task that a block could bound; "
                              "await a task that has one: await spawn(...)"
                            : "a hub callback has no task that a block could bound");
    }
    return task;
}

static void
enter_scope(ScopeObject *scope, TaskObject *task)
{
    scope->has_expired = scope->was_cancelled = false;
    Py_CLEAR(scope->reason);
    scope->task = (TaskObject *)Py_NewRef((PyObject *)task);
    scope->outer = task->scope; // the reference moves
    task->scope = (ScopeObject *)Py_NewRef((PyObject *)scope);
    if (scope->limit_ns >= 0) {
        reactor_arm(&task->hub->reactor, &scope->timer, (uint64_t)scope->limit_ns);
    }
}

ScopeObject *
scope_open(TaskObject *task)
{
    PyObject *scope = new_scope(task->hub->state, SCOPE_MOVE_ON, Py_None);
    if (scope != NULL) {
        enter_scope((ScopeObject *)scope, task);
    }
    return (ScopeObject *)scope;
}

PyDoc_STRVAR(Scope_enter_doc,
             "__enter__($self, /)\n--\n\nBegin to bound the running task.");

static PyObject *
Scope_enter(ScopeObject *scope, PyObject *unused)
{
    (void)unused;
    struct module_state *state = PyType_GetModuleState(Py_TYPE(scope));
    if (scope->task != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this scope is entered already");
        return NULL;
    }
    TaskObject *task = scope_find_task(state);
    if (task == NULL) {
        return NULL;
    }
    enter_scope(scope, task);
    return Py_NewRef((PyObject *)scope);
}

// Takes an entered scope off its task, wherever in the chain it is.
static void
leave_scope(ScopeObject *scope)
{
    TaskObject *task = scope->task;
    timer_wheel_unlink(&task->hub->reactor.timers, &scope->timer);
    ScopeObject **place = &task->scope;
    while (*place != scope) {
        place = &(*place)->outer;
    }
    *place = scope->outer; // the reference moves back
    scope->outer = NULL;
    scope->task = NULL;
    Py_DECREF(scope); // the chain's
    Py_DECREF(task);
}

void
task_leave_scopes(TaskObject *task)
{
    while (task->scope != NULL) {
        leave_scope(task->scope);
    }
}

// Raises TimeoutError in place of the Cancelled that ended the block.
static PyObject *
raise_timeout(ScopeObject *scope)
{
    if (scope->was_cancelled) {
        raise_os_error(PyExc_TimeoutError, ETIMEDOUT,
                       "the block was ended by cancel() of its scope");
    }
    else {
        PyObject *seconds = timeout_to_seconds(scope->limit_ns);
        if (seconds == NULL) {
            return NULL;
        }
        raise_os_error(PyExc_TimeoutError, ETIMEDOUT,
                       "the block was not done in %S seconds", seconds);
        Py_DECREF(seconds);
    }
    PyObject *exception = take_exception();
    if (PyObject_SetAttrString(exception, "scope", (PyObject *)scope) < 0) {
        Py_DECREF(exception);
        return NULL;
    }
    restore_exception(exception);
    return NULL;
}

// Whether an entered scope is the innermost one of the task that runs. 0, or -1 with an
// exception where nobody may ask.
static int
check_leaving(ScopeObject *scope, bool *is_innermost)
{
    TaskObject *task = scope->task;
    HubObject *hub = task->hub;
    if (hub_check_thread(hub, "a scope") < 0) {
        return -1;
    }
    // Whom the hub resumed last runs, unless greenlets were switched without its knowing. A
    // scope that is left there is in its place all the same.
    TaskObject *running = hub->current_task;
    if (running != task && hub_running_task(hub, &running) < 0) {
        return -1; // not reached: the interpreter is being finalised
    }
    *is_innermost = task->scope == scope && (hub->is_closed || running == task);
    return 0;
}

static bool
is_cancelled_error(PyObject *exception, PyTypeObject *scope_type)
{
    struct module_state *state = PyType_GetModuleState(scope_type);
    return PyObject_TypeCheck(exception, (PyTypeObject *)state->Cancelled);
}

PyDoc_STRVAR(
    Scope_exit_doc,
    "__exit__($self, type, value, traceback, /)\n--\n\n"
    "End bounding the task; of timeout(): raise TimeoutError if it ended the block.");

static PyObject *
Scope_exit(ScopeObject *scope, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "__exit__() takes three arguments");
        return NULL;
    }
    bool is_innermost = false;
    if (scope->task != NULL) {
        if (check_leaving(scope, &is_innermost) < 0) {
            return NULL;
        }
        // In the wrong order too: its deadline must not strike when its block is over.
        leave_scope(scope);
    }
    if (!is_innermost) {
        PyErr_SetString(
            PyExc_RuntimeError,
            "this scope is not the innermost one of this task: scopes are left "
            "in the reverse order of entering, in the task that entered");
        return NULL;
    }
    PyObject *exception = arguments[1];
    if (scope->kind == SCOPE_SHIELD || !scope->has_expired ||
        !is_cancelled_error(exception, Py_TYPE(scope))) {
        Py_RETURN_FALSE;
    }
    PyObject *whose = get_attribute(exception, "scope");
    if (whose == NULL) {
        return NULL;
    }
    bool is_ours = whose == (PyObject *)scope;
    Py_DECREF(whose);
    if (is_ours && scope->kind == SCOPE_TIMEOUT) {
        return raise_timeout(scope);
    }
    return PyBool_FromLong(is_ours);
}

PyDoc_STRVAR(
    Scope_cancel_doc,
    "cancel($self, /, reason=None)\n--\n\n"
    "End the block as if its deadline had passed now.\n\n"
    "reason: any object; it becomes the .reason of Cancelled.\n\n"
    "The wait that the block is in, and each further one, raises Cancelled, and the block ends\n"
    "as after its deadline, unless it was done by then; a wait that has completed is not\n"
    "cancelled. Of shield(): the protection ends. By whoever runs in the hub's thread:\n"
    "RuntimeError in another one. Without effect before the block is entered, after it is\n"
    "left, and the second time. Never switches.");

static PyObject *
Scope_cancel(ScopeObject *scope, PyObject *const *arguments, Py_ssize_t count,
             PyObject *keyword_names)
{
    static const char *const names[] = {"reason", NULL};
    static const struct parameters parameters = {"cancel", names, 0, 1};
    PyObject *reason;
    if (parse_arguments(&parameters, arguments, count, keyword_names, &reason) < 0 ||
        (scope->task != NULL && hub_check_thread(scope->task->hub, "a scope") < 0)) {
        return NULL;
    }
    scope_cancel(scope, reason);
    Py_RETURN_NONE;
}

static int
Scope_traverse(ScopeObject *scope, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(scope));
    Py_VISIT(scope->task);
    Py_VISIT(scope->outer);
    Py_VISIT(scope->reason);
    return 0;
}

// Of what it refers to, only the reason: an entered scope is on its task's chain, which is
// live, or the task is cleared, which breaks the cycle.
static int
Scope_clear(ScopeObject *scope)
{
    Py_CLEAR(scope->reason);
    return 0;
}

static void
Scope_dealloc(ScopeObject *scope)
{
    PyTypeObject *type = Py_TYPE(scope);
    PyObject_GC_UnTrack(scope);
    if (scope->task != NULL) {
        timer_wheel_unlink(&scope->task->hub->reactor.timers, &scope->timer);
        Py_CLEAR(scope->task);
    }
    Py_CLEAR(scope->outer);
    Py_CLEAR(scope->reason);
    type->tp_free(scope);
    Py_DECREF(type);
}

static PyObject *
Scope_get_expired(ScopeObject *scope, void *unused)
{
    (void)unused;
    return PyBool_FromLong(scope->has_expired);
}

static PyMethodDef Scope_methods[] = {
    {"__enter__", (PyCFunction)Scope_enter, METH_NOARGS, Scope_enter_doc},
    {"__exit__", (PyCFunction)(void (*)(void))Scope_exit, METH_FASTCALL, Scope_exit_doc},
    {"cancel", (PyCFunction)(void (*)(void))Scope_cancel, METH_FASTCALL | METH_KEYWORDS,
     Scope_cancel_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Scope_getset[] = {
    {"expired", (getter)Scope_get_expired, NULL,
     PyDoc_STR("True once the scope's deadline has passed or cancel() was called."),
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(Scope_doc,
             "What timeout(), move_on_after() and shield() return: bounds a with block.");

static PyType_Slot Scope_slots[] = {
    {Py_tp_doc, (void *)Scope_doc},
    {Py_tp_dealloc, Scope_dealloc},
    {Py_tp_traverse, Scope_traverse},
    {Py_tp_clear, Scope_clear},
    {Py_tp_methods, Scope_methods},
    {Py_tp_getset, Scope_getset},
    {0, NULL},
};

static PyType_Spec Scope_spec = {
    .name = "pycoronet.Scope",
    .basicsize = sizeof(ScopeObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Scope_slots,
};

PyTypeObject *
scope_type_new(PyObject *module)
{
    return add_type(module, &Scope_spec);
}
