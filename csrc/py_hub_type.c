// py_hub_type.c: the Hub type: what users call on it, and the module's hub functions.

#include "py_hub.h"

#include <structmember.h>

#include "py_callbacks.h"
#include "py_convert.h"
#include "py_hooks.h"
#include "py_task.h"
#include "py_timer.h"

// --- Methods ----------------------------------------------------------------------------------

// 0 if the caller is the main program of the hub's thread; else -1 with an exception.
static int
check_main_program(HubObject *hub, const char *operation)
{
    if (hub_check_thread(hub, "this hub") < 0) {
        return -1;
    }
    if (hub->is_closed) {
        PyErr_SetString(PyExc_RuntimeError, "this hub is closed");
        return -1;
    }
    if (!hub_is_main_program(hub)) {
        PyErr_Format(PyExc_RuntimeError,
                     "%s drives the loop and is for the main program, not for a task",
                     operation);
        return -1;
    }
    return 0;
}

PyDoc_STRVAR(
    Hub_run_doc,
    "run($self, /)\n--\n\n"
    "Serve until nothing is left to do, or until stop(), loop_exit() or loop_break().\n\n"
    "Nothing is left without tasks, connections with callbacks, timers, calls of once() and\n"
    "signal handlers. For the main program; switches. It may be called again.\n\n"
    "After stop() each open connection with callbacks gets on_shutdown(), is closed, sends\n"
    "what it still has to send, and gets on_close(); then this returns.\n\n"
    "Source: libevent's event_base_dispatch.");

// Closes all connections with callbacks and waits until they have sent what they hold.
static int
shut_down(HubObject *hub)
{
    hub->is_stopping = false;
    while (hub->callback_count > 0) {
        callbacks_shut_down(hub); // new ones, too
        if (hub->is_stopping) {
            callbacks_abort_all(hub); // somebody is impatient
        }
        if (hub_wait_for_end(hub, -1) < 0) {
            // not reached: interrupted while it stops
            return -1;
        }
    }
    hub->is_stopping = false;
    return 0;
}

static PyObject *
Hub_run(HubObject *hub, PyObject *unused)
{
    (void)unused;
    if (check_main_program(hub, "Hub.run()") < 0) {
        return NULL;
    }
    int status = 0;
    hub->is_running = true;
    while (status >= 0 && !hub->is_stopping && !hub->calls.is_halted &&
           !hub_is_idle(hub)) {
        status = hub_wait_for_end(hub, -1);
    }
    hub->is_running = false;
    hub_end_halt(hub);
    if (status < 0 || (hub->is_stopping && shut_down(hub) < 0)) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    Hub_stop_doc,
    "stop($self, /)\n--\n\n"
    "End the run() that is going on, or else the next one.\n\n"
    "Called again while connections still send, it drops what they hold. For callbacks,\n"
    "tasks and signal handlers of the hub's thread; another one uses\n"
    "call_soon_threadsafe(hub.stop). Never switches.\n\n"
    "Source: libreact's reactor_stop.");

static PyObject *
Hub_stop(HubObject *hub, PyObject *unused)
{
    (void)unused;
    if (hub_check_thread(hub, "this hub") < 0) {
        return NULL;
    }
    if (hub->is_closed) {
        PyErr_SetString(PyExc_RuntimeError, "this hub is closed");
        return NULL;
    }
    hub->is_stopping = true;
    hub_note_end(hub);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    Hub_wait_doc,
    "wait($self, /, timeout=None)\n--\n\n"
    "Wait for events and return how many are ready to be dispatched; run nothing.\n\n"
    "timeout: seconds, None waits for ever, 0 only looks. It may return earlier, also with\n"
    "0 events: for a timer, a signal, or a task that is ready to run. Events that were not\n"
    "dispatched stay and count again, those of one descriptor as one. For the main program,\n"
    "blocks the thread, never switches; what a signal handler raises is raised here.\n\n"
    "Source: coronet's conet_events_wait.");

static PyObject *
Hub_wait(HubObject *hub, PyObject *const *arguments, Py_ssize_t count,
         PyObject *keyword_names)
{
    static const char *const names[] = {"timeout", NULL};
    static const struct parameters parameters = {"wait", names, 0, 1};
    PyObject *timeout;
    int64_t timeout_ns;
    if (parse_arguments(&parameters, arguments, count, keyword_names, &timeout) < 0 ||
        convert_timeout(timeout, &timeout_ns) < 0 ||
        check_main_program(hub, "Hub.wait()") < 0 ||
        hub_fetch(hub, timeout_ns, true) < 0) {
        return NULL;
    }
    if (reactor_withdraw_events(&hub->reactor, &hub->signal_target)) {
        // It is nothing to dispatch.
        hub->signal_target.on_ready(&hub->signal_target, EVENT_READ);
    }
    if (hub_run_signal_handlers(hub) < 0 || hub_raise_main_exception(hub) < 0) {
        return NULL;
    }
    return PyLong_FromLong(hub->reactor.event_count - hub->reactor.next_event);
}

static unsigned
count_ready(HubObject *hub)
{
    unsigned count = 0;
    for (struct list_node *node = hub->ready.next; node != &hub->ready;
         node = node->next) {
        count++;
    }
    return count;
}

// Switches to whoever is next until control is back here for good.
static int
run_dispatch(HubObject *hub)
{
    for (;;) {
        PyObject *target = hub_pick_next(hub, false);
        if (target == NULL) {
            return -1; // not reached: the engine does not fail
        }
        if (target == hub->dispatcher) {
            return 0;
        }
        if (hub_switch(hub, target, hub->root, hub->main_task) < 0) {
            return -1; // not reached: a switch by hand does not fail
        }
    }
}

PyDoc_STRVAR(
    Hub_dispatch_doc,
    "dispatch($self, max=0, /)\n--\n\n"
    "Hand ready events to the coroutines that wait for them, then run due timers.\n\n"
    "max: how many events at most; 0 or less means all. An event counts if it wakes\n"
    "somebody. Returns how many were dispatched; the rest stays for the next call. For the\n"
    "main program; switches, but never waits. Raises RuntimeError\n"
    "elsewhere.\n\n"
    "Source: coronet's conet_events_dispatch.");

static PyObject *
Hub_dispatch(HubObject *hub, PyObject *const *arguments, Py_ssize_t count)
{
    int limit = REACTOR_MAX_EVENTS;
    if (count > 1) {
        PyErr_SetString(PyExc_TypeError, "dispatch() takes at most 1 argument");
        return NULL;
    }
    if (count == 1) {
        int overflow;
        long number = PyLong_AsLongAndOverflow(arguments[0], &overflow);
        if (number == -1 && PyErr_Occurred()) {
            return NULL;
        }
        number = overflow > 0 ? REACTOR_MAX_EVENTS : number;
        limit =
            number > 0 && number < REACTOR_MAX_EVENTS ? (int)number : REACTOR_MAX_EVENTS;
    }
    if (check_main_program(hub, "Hub.dispatch()") < 0) {
        return NULL;
    }
    hub->dispatcher = hub->root;
    hub->dispatch_budget = limit;
    hub->dispatched = 0;
    hub->dispatch_resumes = count_ready(hub);
    int error = run_dispatch(hub);
    if (error == 0) {
        reactor_settle(&hub->reactor);
        hub_run_due_timers(hub);
        // Whom a timer has woken runs now, but no further events.
        hub->dispatch_budget = 0;
        hub->dispatch_resumes = count_ready(hub);
        error = run_dispatch(hub);
    }
    hub->dispatcher = NULL;
    if (hub_has_calls(hub)) {
        hub->needs |= HUB_NEEDS_CALLS;
    }
    if (error < 0 || hub_raise_main_exception(hub) < 0) {
        return NULL;
    }
    return PyLong_FromLong(hub->dispatched);
}

PyDoc_STRVAR(
    Hub_close_doc,
    "close($self, /)\n--\n\n"
    "Cancel all tasks, let their finally blocks run, and free the hub.\n\n"
    "For the main program of the hub's thread; switches. Idempotent. Done by itself when\n"
    "the program ends. The next call that needs a hub makes a new one.\n\n"
    "Source: coronet's conet_cleanup.");

static PyObject *
Hub_close(HubObject *hub, PyObject *unused)
{
    (void)unused;
    Py_INCREF(hub);
    int error = hub_close(hub);
    if (error == 0) {
        hub_uninstall(hub);
    }
    Py_DECREF(hub);
    if (error < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Hub_get_backend(HubObject *hub, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(hub->reactor.operations->name);
}

static PyObject *
Hub_get_time(HubObject *hub, void *unused)
{
    (void)unused;
    if (hub->is_closed) {
        PyErr_SetString(PyExc_RuntimeError, "this hub is closed");
        return NULL;
    }
    return PyFloat_FromDouble((double)reactor_now_ns(&hub->reactor) / 1e9);
}

static PyObject *
Hub_get_cached_time(HubObject *hub, void *unused)
{
    if (hub->turn_time_ns == 0 || hub->is_closed) {
        PyObject *time = Hub_get_time(hub, unused);
        hub->turn_time_ns = hub->reactor.now_ns;
        return time;
    }
    return PyFloat_FromDouble((double)hub->turn_time_ns / 1e9);
}

// --- Module functions ----------------------------------------------------------------------

PyObject *
hub_get_hub(PyObject *module, PyObject *const *arguments, Py_ssize_t count,
            PyObject *keyword_names)
{
    static const char *const names[] = {"backend", NULL};
    static const struct parameters parameters = {"get_hub", names, 0, 1};
    struct module_state *state = module_state_of(module);
    PyObject *backend;
    if (parse_arguments(&parameters, arguments, count, keyword_names, &backend) < 0) {
        return NULL;
    }
    HubObject *hub = backend == NULL || backend == Py_None
                         ? hub_get(state)
                         : hub_get_with_engine(state, backend);
    return Py_XNewRef((PyObject *)hub);
}

PyObject *
hub_close_at_exit(PyObject *module, PyObject *unused)
{
    (void)module;
    HubObject *hub = hub_peek();
    return hub == NULL ? Py_NewRef(Py_None) : Hub_close(hub, unused);
}

// --- The type ---------------------------------------------------------------------------------

static int
Hub_traverse(HubObject *hub, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(hub));
    Py_VISIT(hub->root);
    Py_VISIT(hub->loop);
    Py_VISIT(hub->worker_run);
    Py_VISIT(hub->main_task);
    Py_VISIT(hub->main_exception);
    Py_VISIT(hub->stall_watch);
    return 0;
}

static void
Hub_dealloc(HubObject *hub)
{
    PyTypeObject *type = Py_TYPE(hub);
    PyObject_GC_UnTrack(hub);
    if (hub->weak_references != NULL) {
        PyObject_ClearWeakRefs((PyObject *)hub);
    }
    hub_abandon(hub);
    Py_CLEAR(hub->loop);
    Py_CLEAR(hub->worker_run);
    Py_CLEAR(hub->main_task);
    Py_CLEAR(hub->root);
    free(hub->scratch);
    write_packet_free(hub->spare_packet);
    LIVE_COUNT(LIVE_HUBS, -1);
    type->tp_free(hub);
    Py_DECREF(type);
}

static PyMethodDef own_methods[] = {
    {"run", (PyCFunction)Hub_run, METH_NOARGS, Hub_run_doc},
    {"wait", (PyCFunction)(void (*)(void))Hub_wait, METH_FASTCALL | METH_KEYWORDS,
     Hub_wait_doc},
    {"dispatch", (PyCFunction)(void (*)(void))Hub_dispatch, METH_FASTCALL,
     Hub_dispatch_doc},
    {"stop", (PyCFunction)Hub_stop, METH_NOARGS, Hub_stop_doc},
    {"close", (PyCFunction)Hub_close, METH_NOARGS, Hub_close_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Hub_getset[] = {
    {"backend", (getter)Hub_get_backend, NULL,
     PyDoc_STR("The wait-loop engine's name: 'epoll', 'kqueue' or 'fake'."), NULL},
    {"time", (getter)Hub_get_time, NULL,
     PyDoc_STR("The hub's monotonic clock, in seconds; virtual with the fake engine."),
     NULL},
    {"cached_time", (getter)Hub_get_cached_time, NULL,
     PyDoc_STR(
         "Hub.time as first asked for since the hub last looked for events: the clock\n"
         "is read once a turn, however many callbacks ask."),
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef Hub_members[] = {
    {"switch_count", T_ULONGLONG, offsetof(HubObject, switch_count), READONLY,
     PyDoc_STR("Switches of greenlets the hub has made.")},
    {"task_count", T_PYSSIZET, offsetof(HubObject, task_count), READONLY,
     PyDoc_STR("Tasks that were started and have not ended.")},
    {"_thread_id", T_ULONG, offsetof(HubObject, thread_id), READONLY,
     PyDoc_STR("Of the hub's thread, as threading.get_ident() has it.")},
    {"_cpu_ns", T_ULONGLONG, offsetof(HubObject, cpu_ns), READONLY,
     PyDoc_STR("The CPU time of the hub itself, as far as it was measured.")},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(HubObject, weak_references), READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};

// Puts the methods of all files behind each other, where the type can point at them.
static PyMethodDef *
collect_methods(void)
{
    static PyMethodDef collected[40];
    PyMethodDef *const parts[] = {own_methods,       hub_call_methods,
                                  hub_timer_methods, hub_hook_methods,
                                  hub_dump_methods,  hub_inspect_methods};
    size_t count = 0;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(parts); i++) {
        for (PyMethodDef *method = parts[i]; method->ml_name != NULL; method++) {
            assert(count + 1 < Py_ARRAY_LENGTH(collected));
            collected[count++] = *method;
        }
    }
    return collected;
}

PyDoc_STRVAR(
    Hub_doc,
    "A thread's scheduler and wait loop; get_hub() gives it.\n\n"
    "It runs by itself whenever the main program waits for something. wait() and\n"
    "dispatch() drive it by hand instead.\n\n"
    "Source: libevent's event_base; coronet's context; libreact's reactor. What has no\n"
    "other name there is pycoronet's own.");

PyTypeObject *
hub_type_new(PyObject *module)
{
    PyType_Slot slots[] = {
        {Py_tp_doc, (void *)Hub_doc},
        {Py_tp_dealloc, Hub_dealloc},
        {Py_tp_traverse, Hub_traverse},
        {Py_tp_methods, collect_methods()},
        {Py_tp_getset, Hub_getset},
        {Py_tp_members, Hub_members},
        {0, NULL},
    };
    PyType_Spec spec = {
        .name = "pycoronet.Hub",
        .basicsize = sizeof(HubObject),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
                 Py_TPFLAGS_DISALLOW_INSTANTIATION,
        .slots = slots,
    };
    return add_type(module, &spec);
}
