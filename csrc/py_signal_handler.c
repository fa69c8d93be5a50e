// py_signal_handler.c: signal_handler(): functions that the hub calls for a signal.
//
// All of them stand behind one Python handler, which only queues their calls: whichever
// greenlet it happens to run in, the functions run in the hub greenlet. What wakes the hub
// for it is in py_signals.c. Invariant: as long as a number has handles, one of them keeps in
// its extra which handler was there before, and that is put back when the last one ends.

#include "py_signal_handler.h"

#include "py_convert.h"
#include "py_handle.h"

typedef struct {
    HandleObject handle; // its extra is the handler before, or NULL
    int number;
} SignalHandleObject;

static void end_signal(HandleObject *handle);

static SignalHandleObject *
signal_of(HandleObject *handle)
{
    return CONTAINER_OF(handle, SignalHandleObject, handle);
}

// The next active handle of that signal behind [node]; NULL if there is none.
static HandleObject *
next_of_signal(HubObject *hub, struct list_node *node, int number)
{
    for (node = node->next; node != &hub->handles; node = node->next) {
        HandleObject *handle = CONTAINER_OF(node, HandleObject, link);
        if (handle->on_end == end_signal && signal_of(handle)->number == number) {
            return handle;
        }
    }
    return NULL;
}

PyObject *
signal_handler_dispatch(PyObject *module, PyObject *arguments)
{
    int number;
    PyObject *frame;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "iO", &number, &frame)) {
        return NULL;
    }
    HubObject *hub = hub_peek();
    struct list_node *node = hub == NULL ? NULL : &hub->handles;
    HandleObject *handle;
    while (node != NULL && (handle = next_of_signal(hub, node, number)) != NULL) {
        hub_queue_call(hub, &handle->call);
        node = &handle->link;
    }
    Py_RETURN_NONE;
}

static void
run_signal(struct hub_call *call)
{
    HandleObject *handle = handle_of_call(call);
    HubObject *hub = handle->hub;
    PyObject *function = Py_NewRef(handle->function); // the call may end the handle
    PyObject *number = PyLong_FromLong(signal_of(handle)->number);
    PyObject *result = number == NULL ? NULL : PyObject_CallOneArg(function, number);
    if (result == NULL) {
        hub_take_exception(hub, function);
    }
    Py_XDECREF(result);
    Py_XDECREF(number);
    Py_DECREF(function);
}

// Makes [handler] the signal's; the one before, a new reference, NULL with an exception.
static PyObject *
install(int number, PyObject *handler)
{
    return call_signal_module("signal", "(iO)", number, handler);
}

// Puts [before] back, unless somebody else has taken the signal since.
static void
give_back(HubObject *hub, int number, PyObject *before)
{
    PyObject *exception = take_exception();
    PyObject *present = call_signal_module("getsignal", "(i)", number);
    PyObject *ours = present;
    if (present == hub->state->signal_dispatcher) {
        // None stands for a handler that is not Python's, which nobody can put back.
        ours = before == Py_None ? call_signal_module("signal", "(ii)", number, 0)
                                 : install(number, before);
        Py_XDECREF(ours);
    }
    if (ours == NULL) {
        report_exception((PyObject *)hub);
    }
    Py_XDECREF(present);
    restore_exception(exception);
}

static void
end_signal(HandleObject *handle)
{
    HubObject *hub = handle->hub;
    if (handle->extra == NULL) {
        return;
    }
    int number = signal_of(handle)->number;
    HandleObject *other = next_of_signal(hub, &hub->handles, number);
    if (other != NULL) {
        other->extra = handle->extra; // the reference moves
        handle->extra = NULL;
        return;
    }
    give_back(hub, number, handle->extra);
}

const char signal_handler_doc[] =
    "signal_handler($module, signum, function, /)\n--\n\n"
    "Have function(signum) called when the signal comes; return a handle with cancel().\n\n"
    "It is a callback of the hub, not an interruption: it is called in the next round, in no\n"
    "coroutine's context, also while the hub sleeps; it must not wait, and what it raises is\n"
    "reported through sys.unraisablehook. Signals that come before it is called count as one.\n"
    "A signal may have several; they are called in the order they were added. With the last\n"
    "cancel(), or when the hub closes, the handler before comes back; in a forked child it has\n"
    "come back. Until then it keeps Hub.run() going. For SIGINT it replaces\n"
    "KeyboardInterrupt. For the main thread: RuntimeError elsewhere. ValueError for what is no\n"
    "signal, OSError for one that cannot be caught. Never switches.\n\n"
    "Source: libevent's signal events.";

PyObject *
signal_handler_add(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    struct module_state *state = module_state_of(module);
    int number;
    if (count != 2 || !PyCallable_Check(arguments[1])) {
        PyErr_SetString(PyExc_TypeError,
                        "signal_handler() needs a signal and something callable");
        return NULL;
    }
    HubObject *hub = hub_get(state);
    if (hub == NULL || convert_int(arguments[0], "signum", 0, &number) < 0 ||
        handle_check_hub(hub) < 0) {
        return NULL;
    }
    if (!hub->is_main_thread) {
        PyErr_SetString(PyExc_RuntimeError,
                        "signal_handler() is for the main thread, where Python runs the "
                        "handlers of signals; what it calls may use another hub's "
                        "call_soon_threadsafe()");
        return NULL;
    }
    HandleObject *handle =
        handle_new(state->signal_type, hub, arguments[1], NULL, run_signal, end_signal);
    // The hub's own handler of SIGINT has to be in its place before it is replaced.
    if (handle == NULL || hub_take_signals(hub) < 0) {
        Py_XDECREF((PyObject *)handle);
        return NULL;
    }
    signal_of(handle)->number = number;
    PyObject *before = install(number, state->signal_dispatcher);
    if (before == NULL) {
        Py_DECREF((PyObject *)handle);
        return NULL;
    }
    HandleObject *other = next_of_signal(hub, &hub->handles, number);
    if (before != state->signal_dispatcher) {
        // Nobody's first one, or somebody has taken the signal in between.
        HandleObject *keeper = other == NULL ? handle : other;
        Py_XSETREF(keeper->extra, Py_NewRef(before));
    }
    Py_DECREF(before);
    handle_start(handle);
    return (PyObject *)handle;
}

static PyObject *
get_signum(PyObject *handle, void *unused)
{
    (void)unused;
    return PyLong_FromLong(((SignalHandleObject *)handle)->number);
}

PyTypeObject *
signal_type_new(PyObject *module)
{
    static PyGetSetDef attributes[] = {
        {"signum", get_signum, NULL, PyDoc_STR("The number of the signal."), NULL},
        {"active", handle_get_active, NULL, handle_active_doc, NULL},
        {NULL, NULL, NULL, NULL, NULL},
    };
    return handle_type_new(
        module, "pycoronet.SignalHandle", sizeof(SignalHandleObject),
        "What signal_handler() returns.\n\nSource: libevent's struct event.", attributes);
}
