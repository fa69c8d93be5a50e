// coronet.c: the extension module pycoronet._coronet.
//
// Module definition, state and method table; everything else is in the files the table
// points to. Initialised in two phases, with heap types. Sub-interpreters are refused, as
// greenlet refuses them; free-threaded builds get the GIL.

#include "py_state.h"

#include "engine.h"
#include "greenlet_bridge.h"
#include "py_capi.h"
#include "py_conn.h"
#include "py_convert.h"
#include "py_once.h"
#include "py_signal_handler.h"
#include "py_sync.h"
#include "py_task.h"
#include "py_wait.h"

struct module_state *
module_state_of(PyObject *module)
{
    return PyModule_GetState(module);
}

// Defined at the end, for it refers to everything else.
static struct PyModuleDef module_definition;

struct module_state *
module_state_of_type(PyTypeObject *type)
{
    PyObject *module = PyType_GetModule(type);
    while (module == NULL || PyModule_GetDef(module) != &module_definition) {
        PyErr_Clear(); // a class written in Python, which has none
        type = type->tp_base;
        module = PyType_GetModule(type);
    }
    return PyModule_GetState(module);
}

PyTypeObject *
add_type(PyObject *module, PyType_Spec *spec)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type != NULL && PyModule_AddType(module, (PyTypeObject *)type) < 0) {
        Py_CLEAR(type); // not reached: imports have memory here
    }
    return (PyTypeObject *)type;
}

// --- Small functions that belong to no type ----------------------------------------------

static PyObject *
set_resolver(PyObject *module, PyObject *function)
{
    Py_XSETREF(module_state_of(module)->resolve, Py_NewRef(function));
    Py_RETURN_NONE;
}

static PyObject *
count_idle_thread(PyObject *module, PyObject *change)
{
    long number = PyLong_AsLong(change);
    if (number == -1 && PyErr_Occurred()) {
        return NULL;
    }
    module_state_of(module)->idle_thread_count += number;
    Py_RETURN_NONE;
}

static PyObject *
hub_exists(PyObject *module, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(!list_is_empty(&module_state_of(module)->open_hubs));
}

static PyObject *
report_failure(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    if (count != 2 || !PyExceptionInstance_Check(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "_report() takes (error, origin)");
        return NULL;
    }
    restore_exception(Py_NewRef(arguments[0]));
    report_exception(arguments[1]);
    Py_RETURN_NONE;
}

static PyObject *
advance_time(PyObject *module, PyObject *seconds)
{
    HubObject *hub = hub_get(module_state_of(module));
    double delay = PyFloat_AsDouble(seconds);
    if (hub == NULL || (delay == -1.0 && PyErr_Occurred())) {
        return NULL;
    }
    if (hub->reactor.operations != &fake_engine || !(delay >= 0)) {
        PyErr_SetString(PyExc_ValueError,
                        "only the fake engine's time can be moved, and only forward");
        return NULL;
    }
    fake_engine_advance(hub->reactor.engine, (uint64_t)(delay * 1e9));
    Py_RETURN_NONE;
}

#ifdef CORONET_DEBUG
static PyObject *
get_live_counts(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    PyObject *counts = PyDict_New();
    for (enum live_kind kind = 0; counts != NULL && kind < LIVE_KINDS; kind++) {
        PyObject *count = PyLong_FromLong(live_counts_get(kind));
        if (count == NULL ||
            PyDict_SetItemString(counts, live_counts_name(kind), count) < 0) {
            Py_CLEAR(counts);
        }
        Py_XDECREF(count);
    }
    return counts;
}

static PyMethodDef debug_methods[] = {
    {"live_counts", get_live_counts, METH_NOARGS,
     PyDoc_STR("live_counts($module, /)\n--\n\n"
               "How many connections, tasks, timers ... the process has, by name.")},
    {NULL, NULL, 0, NULL},
};
#endif

// --- The method table ---------------------------------------------------------------------

PyDoc_STRVAR(
    spawn_doc,
    "spawn($module, function, /, *args, **kwargs)\n--\n\n"
    "Start function(*args, **kwargs) as a task of this thread's hub; return the Task.\n\n"
    "It begins when the caller next waits. It inherits a copy of the caller's contextvars.\n"
    "Raises TypeError for something not callable. Never switches.\n\n"
    "Source: libpcl's co_create.");

PyDoc_STRVAR(
    spawn_later_doc,
    "spawn_later($module, seconds, function, /, *args, **kwargs)\n--\n\n"
    "Start a task as spawn() does, but not before so many seconds.\n\n"
    "seconds: 0 or more; more than a year counts as a year. It never begins early. Until then\n"
    "the task has no stack; cancel() ends it at once, and its function is never called. Raises\n"
    "ValueError for a negative number, NaN or infinity. Never switches.\n\n"
    "Source: pycoronet's own.");

PyDoc_STRVAR(spawn_handler_doc,
             "spawn_handler($module, handler, conn, address, /)\n--\n\n"
             "spawn(handler, conn, address), and conn is closed when the task ends.");

PyDoc_STRVAR(
    current_doc,
    "current($module, /)\n--\n\n"
    "The running Task; None in a hub callback. The main program has one too. Never switches.\n\n"
    "Source: libpcl's co_current.");

PyDoc_STRVAR(
    sleep_doc,
    "sleep($module, /, seconds=0)\n--\n\n"
    "Let other tasks run for so many seconds; 0 lets each ready one run once.\n\n"
    "Never wakes early. None sleeps until the task is cancelled. Raises ValueError for a\n"
    "negative number or NaN. Switches.\n\n"
    "Source: pycoronet's own.");

PyDoc_STRVAR(
    timeout_doc,
    "timeout($module, seconds, /)\n--\n\n"
    "Bound the block of `with timeout(seconds):`; TimeoutError if it is not done in time.\n\n"
    "When the time is over, waits in the block raise Cancelled until the block is left; the\n"
    "scope then raises TimeoutError with itself as .scope. None sets no bound. Entering and\n"
    "leaving never switch.\n\n"
    "Source: pycoronet's own.");

PyDoc_STRVAR(
    move_on_after_doc,
    "move_on_after($module, seconds, /)\n--\n\n"
    "Bound a block as timeout() does; but the block just ends when its time is over.\n\n"
    "The scope's .expired tells whether it was. Entering and leaving never switch.\n\n"
    "Source: pycoronet's own.");

PyDoc_STRVAR(
    shield_doc,
    "shield($module, /, seconds=None)\n--\n\n"
    "Keep cancellation from outside out of the block of `with shield(seconds):`.\n\n"
    "For clean-up in a finally block. After so many seconds the protection ends; None: it\n"
    "lasts as long as the block. Entering and leaving never switch. Raises ValueError for a\n"
    "negative number or NaN.\n\n"
    "Source: pycoronet's own.");

PyDoc_STRVAR(
    get_hub_doc,
    "get_hub($module, /, backend=None)\n--\n\n"
    "This thread's Hub, made at the first call. Never switches.\n\n"
    "backend: the name of its wait-loop engine, 'epoll', 'kqueue' or 'fake'; None takes that\n"
    "of the environment variable PYCORONET_ENGINE, or else the best there is. With None a hub\n"
    "that was made before is returned whatever its engine.\n\n"
    "Raises ValueError for an engine this build does not have, and RuntimeError if the\n"
    "thread's hub has another one: close() that first.\n\n"
    "Source: coronet's conet_init; libevent's event_base_new.");

PyDoc_STRVAR(
    wait_fd_doc,
    "wait_fd($module, fd, events, timeout=None)\n--\n\n"
    "Wait until a descriptor is ready; return what it is ready for.\n\n"
    "fd: an int or an object with fileno(). events: READ, WRITE or PRIORITY, or-ed together.\n"
    "timeout: seconds, None waits for ever, 0 only looks.\n\n"
    "The result may also have HANGUP and other bits of poll(2). Raises TimeoutError,\n"
    "ClosedError after notify_closing(), BusyError if another task waits for the same,\n"
    "ValueError for a regular file. Switches.\n\n"
    "Source: libevent's event_new, for a coroutine.");

PyDoc_STRVAR(
    wait_readable_doc,
    "wait_readable($module, fd, timeout=None)\n--\n\n"
    "Wait until a descriptor is readable: as wait_fd(fd, READ, timeout).\n\n"
    "fd: a descriptor or what has one. timeout: seconds, None waits for ever. May switch.\n\n"
    "Source: libevent's event_new, for a coroutine.");

PyDoc_STRVAR(
    wait_writable_doc,
    "wait_writable($module, fd, timeout=None)\n--\n\n"
    "Wait until a descriptor is writable: as wait_fd(fd, WRITE, timeout).\n\n"
    "fd: a descriptor or what has one. timeout: seconds, None waits for ever. May switch.\n\n"
    "Source: libevent's event_new, for a coroutine.");

PyDoc_STRVAR(
    notify_closing_doc,
    "notify_closing($module, fd, /)\n--\n\n"
    "Tell the hub that fd is about to be closed by other means than sk_conn.close().\n\n"
    "Whoever waits for it gets ClosedError at once. Never switches.\n\n"
    "Source: pycoronet's own.");

PyDoc_STRVAR(
    flush_all_doc,
    "flush_all($module, /)\n--\n\n"
    "Send what the connections of this thread have queued, as far as the system takes it.\n\n"
    "Return how many bytes are left. Failures are kept, as for any flush. Never waits, never\n"
    "switches.\n\n"
    "Source: libsock's sock_flush_all.");

PyDoc_STRVAR(
    co_create_doc,
    "co_create($module, function, /, *args)\n--\n\n"
    "Return a coroutine, a Task, that has not been entered.\n\n"
    "function: called as function(*args) when it is. Raises TypeError for what is not callable.\n"
    "Never switches.\n\n"
    "Source: libpcl's co_create.");

PyDoc_STRVAR(
    co_call_doc,
    "co_call($module, coroutine, /)\n--\n\n"
    "Enter a coroutine, or go on in one that is in co_resume().\n\n"
    "Control is back here when it first waits, calls co_resume() or ends. Switches. Raises\n"
    "RuntimeError in a hub callback, for one that has ended, and for one that waits for\n"
    "something else.\n\n"
    "Source: libpcl's co_call.");

PyDoc_STRVAR(
    co_resume_doc,
    "co_resume($module, /)\n--\n\n"
    "Give control back; return when somebody calls the coroutine again, or when what mod()\n"
    "asked for is ready on a connection bound to it. Switches.\n\n"
    "Source: libpcl's co_resume.");

PyDoc_STRVAR(
    co_delete_doc,
    "co_delete($module, coroutine, /)\n--\n\n"
    "End a coroutine: one that was never entered at once, another one by cancelling it.\n\n"
    "Raises RuntimeError for the running coroutine. Never switches.\n\n"
    "Source: libpcl's co_delete.");

#define FASTCALL(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef module_methods[] = {
    {"spawn", FASTCALL(task_spawn), METH_FASTCALL | METH_KEYWORDS, spawn_doc},
    {"spawn_later", FASTCALL(task_spawn_later), METH_FASTCALL | METH_KEYWORDS,
     spawn_later_doc},
    {"spawn_handler", FASTCALL(task_spawn_handler), METH_FASTCALL, spawn_handler_doc},
    {"current", task_current, METH_NOARGS, current_doc},
    {"sleep", FASTCALL(task_sleep), METH_FASTCALL | METH_KEYWORDS, sleep_doc},
    {"timeout", scope_timeout, METH_O, timeout_doc},
    {"move_on_after", scope_move_on_after, METH_O, move_on_after_doc},
    {"shield", FASTCALL(scope_shield), METH_FASTCALL | METH_KEYWORDS, shield_doc},
    {"get_hub", FASTCALL(hub_get_hub), METH_FASTCALL | METH_KEYWORDS, get_hub_doc},
    {"wait_fd", FASTCALL(wait_fd), METH_FASTCALL | METH_KEYWORDS, wait_fd_doc},
    {"wait_readable", FASTCALL(wait_readable), METH_FASTCALL | METH_KEYWORDS,
     wait_readable_doc},
    {"wait_writable", FASTCALL(wait_writable), METH_FASTCALL | METH_KEYWORDS,
     wait_writable_doc},
    {"once", FASTCALL(once_call), METH_FASTCALL | METH_KEYWORDS, once_doc},
    {"notify_closing", wait_notify_closing, METH_O, notify_closing_doc},
    {"co_create", FASTCALL(coroutine_create), METH_FASTCALL, co_create_doc},
    {"co_call", coroutine_call, METH_O, co_call_doc},
    {"co_resume", coroutine_resume, METH_NOARGS, co_resume_doc},
    {"co_delete", coroutine_delete, METH_O, co_delete_doc},
    {"flush_all", conn_flush_all, METH_NOARGS, flush_all_doc},
    {"_socket", FASTCALL(socket_open), METH_FASTCALL,
     PyDoc_STR(
         "_socket($module, family, type, protocol=0, /)\n--\n\nA new socket's sk_conn.")},
    {"_listen", FASTCALL(conn_listen), METH_FASTCALL,
     PyDoc_STR("_listen($module, conn, backlog, /)\n--\n\nHave a bound socket listen.")},
    {"_set_resolver", set_resolver, METH_O,
     PyDoc_STR("_set_resolver($module, function, /)\n--\n\n"
               "Have host names looked up by function(host, port, family, type).")},
    {"_count_idle_thread", count_idle_thread, METH_O,
     PyDoc_STR("_count_idle_thread($module, change, /)\n--\n\n"
               "A thread of ours begins (1) or ends (-1) to wait for work.")},
    {"_hub_exists", hub_exists, METH_NOARGS,
     PyDoc_STR("_hub_exists($module, /)\n--\n\n"
               "Whether any thread of this process has a hub that is not closed.")},
    {"_list_hubs", inspect_list_hubs, METH_NOARGS,
     PyDoc_STR("_list_hubs($module, /)\n--\n\n"
               "The hubs of all threads that are not closed. For any thread.")},
    {"_advance_time", advance_time, METH_O,
     PyDoc_STR("_advance_time($module, seconds, /)\n--\n\n"
               "Move the virtual time of the fake engine.")},
    {"_close_at_exit", hub_close_at_exit, METH_NOARGS,
     PyDoc_STR(
         "_close_at_exit($module, /)\n--\n\nClose this thread's hub, if it has one.")},
    {"_after_fork_in_child", hub_after_fork_in_child, METH_NOARGS,
     PyDoc_STR("_after_fork_in_child($module, /)\n--\n\nAbandon what is the parent's.")},
    {"_report", FASTCALL(report_failure), METH_FASTCALL,
     PyDoc_STR("_report($module, error, origin, /)\n--\n\n"
               "Tell sys.unraisablehook of an exception that nobody can be given.")},
    {"_interrupt_main", signals_interrupt, METH_VARARGS,
     PyDoc_STR("_interrupt_main($module, signum, frame, /)\n--\n\n"
               "Stands in for signal.default_int_handler.")},
    {"signal_handler", FASTCALL(signal_handler_add), METH_FASTCALL, signal_handler_doc},
    {"_dispatch_signal", signal_handler_dispatch, METH_VARARGS,
     PyDoc_STR("_dispatch_signal($module, signum, frame, /)\n--\n\n"
               "Queue the functions that signal_handler() was given.")},
    {NULL, NULL, 0, NULL},
};

// --- Setting up ---------------------------------------------------------------------------

static int
import_errors(struct module_state *state)
{
    PyObject *errors = PyImport_ImportModule("pycoronet.errors");
    if (errors == NULL) {
        return -1; // not reached: imports have memory here
    }
    const struct {
        PyObject **place;
        const char *name;
    } wanted[] = {
        {&state->Cancelled, "Cancelled"},
        {&state->ClosedError, "ClosedError"},
        {&state->BusyError, "BusyError"},
        {&state->LineTooLongError, "LineTooLongError"},
        {&state->IncompleteReadError, "IncompleteReadError"},
        {&state->DeadlockError, "DeadlockError"},
        {&state->ShutDown, "ShutDown"},
        {&state->queue_empty, "Empty"},
        {&state->queue_full, "Full"},
    };
    int error = 0;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(wanted) && error == 0; i++) {
        *wanted[i].place = PyObject_GetAttrString(errors, wanted[i].name);
        error = *wanted[i].place == NULL ? -1 : 0;
    }
    Py_DECREF(errors);
    return error;
}

static int
intern_names(struct module_state *state)
{
    const struct {
        PyObject **place;
        const char *name;
    } wanted[] = {
        {&state->on_open, "on_open"},         {&state->on_data, "on_data"},
        {&state->on_ready, "on_ready"},       {&state->on_eof, "on_eof"},
        {&state->on_error, "on_error"},       {&state->on_timeout, "on_timeout"},
        {&state->on_shutdown, "on_shutdown"}, {&state->on_close, "on_close"},
        {&state->name_wrap, "wrap"},          {&state->name_unwrap, "unwrap"},
        {&state->name_finish, "finish"},      {&state->name_started, "started"},
        {&state->name_on_clear, "on_clear"},
    };
    int error = 0;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(wanted) && error == 0; i++) {
        *wanted[i].place = PyUnicode_InternFromString(wanted[i].name);
        error = *wanted[i].place == NULL ? -1 : 0;
    }
    return error;
}

static int
make_types(PyObject *module, struct module_state *state)
{
    const struct {
        PyTypeObject **type;
        PyTypeObject *(*make)(PyObject *module);
    } types[] = {
        {&state->hub_type, hub_type_new},
        {&state->task_type, task_type_new},
        {&state->conn_type, conn_type_new},
        {&state->scope_type, scope_type_new},
        {&state->group_type, group_type_new},
        {&state->parking_lot_type, parking_lot_type_new},
        {&state->timer_type, timer_type_new},
        {&state->hook_type, hook_type_new},
        {&state->once_type, once_type_new},
        {&state->signal_type, signal_type_new},
        {&state->guest_type, guest_type_new},
        {&state->layer_type, layer_type_new},
        {&state->line_iterator_type, line_iterator_type_new},
        {&state->rate_limit_type, rate_limit_type_new},
        {&state->rate_group_type, rate_group_type_new},
        {&state->traffic_type, traffic_type_new},
        {&state->faults_type, faults_type_new},
        {&state->lock_type, lock_type_new},
        {&state->queue_type, queue_type_new},
    };
    for (size_t i = 0; i < Py_ARRAY_LENGTH(types); i++) {
        *types[i].type = types[i].make(module);
        if (*types[i].type == NULL) {
            return -1; // not reached: imports have memory here
        }
    }
    return sync_add_types(module) < 0 || local_type_add(module) < 0 ? -1 : 0;
}

static int
add_constants(PyObject *module)
{
    return PyModule_AddObjectRef(module, "HARD_MODE", HARD_MODE ? Py_True : Py_False) <
                       0 ||
                   PyModule_AddIntConstant(module, "READ", EVENT_READ) < 0 ||
                   PyModule_AddIntConstant(module, "WRITE", EVENT_WRITE) < 0 ||
                   PyModule_AddIntConstant(module, "PRIORITY", EVENT_PRIORITY) < 0 ||
                   PyModule_AddIntConstant(module, "HANGUP", EVENT_HANGUP) < 0 ||
                   PyModule_AddIntConstant(module, "HIGH", PRIORITY_HIGH) < 0 ||
                   PyModule_AddIntConstant(module, "NORMAL", PRIORITY_NORMAL) < 0 ||
                   PyModule_AddIntConstant(module, "LOW", PRIORITY_LOW) < 0 ||
                   PyModule_AddObjectRef(module, "GreenletExit",
                                         greenlet_exit_exception()) < 0
               ? -1
               : 0;
}

static int
module_exec(PyObject *module)
{
    struct module_state *state = module_state_of(module);
    const char *fresh = getenv("PYCORONET_FRESH_GREENLETS");
    list_init(&state->open_hubs);
    state->reuses_workers = fresh == NULL || strcmp(fresh, "1") != 0;
    if (greenlet_bridge_import() < 0 || import_errors(state) < 0 ||
        intern_names(state) < 0 || make_types(module, state) < 0 ||
        add_constants(module) < 0 || capi_add(module) < 0) {
        return -1; // not reached: imports have memory here
    }
#ifdef CORONET_DEBUG
    if (PyModule_AddFunctions(module, debug_methods) < 0) {
        return -1;
    }
#endif
    state->interrupt_handler = PyObject_GetAttrString(module, "_interrupt_main");
    state->signal_dispatcher = PyObject_GetAttrString(module, "_dispatch_signal");
    return state->interrupt_handler == NULL || state->signal_dispatcher == NULL ? -1 : 0;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct module_state *state = module_state_of(module);
    Py_VISIT(state->hub_type);
    Py_VISIT(state->task_type);
    Py_VISIT(state->conn_type);
    Py_VISIT(state->scope_type);
    Py_VISIT(state->group_type);
    Py_VISIT(state->parking_lot_type);
    Py_VISIT(state->timer_type);
    Py_VISIT(state->hook_type);
    Py_VISIT(state->once_type);
    Py_VISIT(state->signal_type);
    Py_VISIT(state->guest_type);
    Py_VISIT(state->layer_type);
    Py_VISIT(state->line_iterator_type);
    Py_VISIT(state->rate_limit_type);
    Py_VISIT(state->rate_group_type);
    Py_VISIT(state->traffic_type);
    Py_VISIT(state->faults_type);
    Py_VISIT(state->lock_type);
    Py_VISIT(state->queue_type);
    Py_VISIT(state->waiter_type);
    Py_VISIT(state->Cancelled);
    Py_VISIT(state->ClosedError);
    Py_VISIT(state->BusyError);
    Py_VISIT(state->LineTooLongError);
    Py_VISIT(state->IncompleteReadError);
    Py_VISIT(state->DeadlockError);
    Py_VISIT(state->ShutDown);
    Py_VISIT(state->queue_empty);
    Py_VISIT(state->queue_full);
    Py_VISIT(state->resolve);
    Py_VISIT(state->interrupt_handler);
    Py_VISIT(state->signal_dispatcher);
    return 0;
}

static int
module_clear(PyObject *module)
{
    struct module_state *state = module_state_of(module);
    Py_CLEAR(state->hub_type);
    Py_CLEAR(state->task_type);
    Py_CLEAR(state->conn_type);
    Py_CLEAR(state->scope_type);
    Py_CLEAR(state->group_type);
    Py_CLEAR(state->parking_lot_type);
    Py_CLEAR(state->timer_type);
    Py_CLEAR(state->hook_type);
    Py_CLEAR(state->once_type);
    Py_CLEAR(state->signal_type);
    Py_CLEAR(state->guest_type);
    Py_CLEAR(state->on_open);
    Py_CLEAR(state->on_data);
    Py_CLEAR(state->on_ready);
    Py_CLEAR(state->on_eof);
    Py_CLEAR(state->on_error);
    Py_CLEAR(state->on_timeout);
    Py_CLEAR(state->on_shutdown);
    Py_CLEAR(state->on_close);
    Py_CLEAR(state->layer_type);
    Py_CLEAR(state->line_iterator_type);
    Py_CLEAR(state->rate_limit_type);
    Py_CLEAR(state->rate_group_type);
    Py_CLEAR(state->traffic_type);
    Py_CLEAR(state->faults_type);
    Py_CLEAR(state->lock_type);
    Py_CLEAR(state->queue_type);
    Py_CLEAR(state->waiter_type);
    Py_CLEAR(state->name_wrap);
    Py_CLEAR(state->name_unwrap);
    Py_CLEAR(state->name_finish);
    Py_CLEAR(state->name_started);
    Py_CLEAR(state->name_on_clear);
    Py_CLEAR(state->Cancelled);
    Py_CLEAR(state->ClosedError);
    Py_CLEAR(state->BusyError);
    Py_CLEAR(state->LineTooLongError);
    Py_CLEAR(state->IncompleteReadError);
    Py_CLEAR(state->DeadlockError);
    Py_CLEAR(state->ShutDown);
    Py_CLEAR(state->queue_empty);
    Py_CLEAR(state->queue_full);
    Py_CLEAR(state->resolve);
    Py_CLEAR(state->interrupt_handler);
    Py_CLEAR(state->signal_dispatcher);
    return 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pycoronet._coronet",
    .m_doc = PyDoc_STR("The C core of pycoronet."),
    .m_size = sizeof(struct module_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC PyInit__coronet(void);

PyMODINIT_FUNC
PyInit__coronet(void)
{
    return PyModuleDef_Init(&module_definition);
}
