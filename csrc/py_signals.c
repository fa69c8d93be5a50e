// py_signals.c: signals, so that they reach the main program and no random coroutine.
//
// CPython runs a Python signal handler in whichever greenlet executes bytecode at the
// time. For SIGINT's own handler that would raise KeyboardInterrupt in any coroutine, so
// from the first turn on the hub stands in for it: in the main program it raises as
// before; anywhere else it leaves the KeyboardInterrupt for the main program and wakes it.
// A second one that finds the first undelivered raises on the spot: that is the way out
// of a coroutine that never waits.
//
// It stays in place until the hub closes: putting it back at each return to the main
// program would cost two system calls a wait, and in the main program it behaves like
// the handler it replaces.
//
// A signal that comes just before the poll is not lost: CPython writes a byte to the
// wake-up descriptor, which is a pipe the engine watches. Another one that was set before
// (asyncio's, say) is passed the byte.

#include "py_hub.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "nonblocking_io.h"
#include "py_convert.h"

// --- The handler ------------------------------------------------------------------------

static PyObject *
raise_interrupt(void)
{
    PyErr_SetNone(PyExc_KeyboardInterrupt);
    return NULL;
}

PyObject *
signals_interrupt(PyObject *module, PyObject *arguments)
{
    (void)module;
    (void)arguments;
    HubObject *hub = hub_peek();
    TaskObject *running = NULL;
    if (hub != NULL && hub_running_task(hub, &running) < 0) {
        return NULL;
    }
    if (hub == NULL || running == hub_main_task(hub) || hub->main_exception != NULL) {
        return raise_interrupt();
    }
    PyObject *exception = PyObject_CallNoArgs(PyExc_KeyboardInterrupt);
    if (exception == NULL) {
        return NULL;
    }
    hub_interrupt_main(hub, exception);
    Py_RETURN_NONE;
}

// An attribute of the module in C below signal; a new reference, NULL with an exception.
// Python imports it when it starts, so it is there to the end, and to have it runs no code.
static PyObject *
find_in_signal_module(const char *name)
{
    PyObject *module = PyImport_ImportModule("_signal");
    PyObject *attribute = module == NULL ? NULL : get_attribute(module, name);
    Py_XDECREF(module);
    return attribute;
}

PyObject *
call_signal_module(const char *name, const char *format, ...)
{
    PyObject *function = find_in_signal_module(name);
    if (function == NULL) {
        return NULL;
    }
    va_list values;
    va_start(values, format);
    PyObject *arguments = Py_VaBuildValue(format, values);
    va_end(values);
    PyObject *result =
        arguments == NULL ? NULL : PyObject_CallObject(function, arguments);
    Py_XDECREF(arguments);
    Py_DECREF(function);
    return result;
}

// 1 if SIGINT's handler is signal.<name>'s value, or [handler]; 0 if not; -1 on error.
static int
handles_interrupt(PyObject *handler)
{
    PyObject *present = call_signal_module("getsignal", "(i)", SIGINT);
    if (present == NULL) {
        return -1;
    }
    Py_DECREF(present);
    return present == handler;
}

static int
set_interrupt_handler(PyObject *handler)
{
    PyObject *result = call_signal_module("signal", "(iO)", SIGINT, handler);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static PyObject *
default_handler(void)
{
    return find_in_signal_module("default_int_handler");
}

// --- The wake-up pipe -------------------------------------------------------------------

static bool
take_signal_byte(struct ready_target *target, unsigned ready)
{
    HubObject *hub = CONTAINER_OF(target, HubObject, signal_target);
    unsigned char numbers[64];
    (void)ready;
    ssize_t count;
    while ((count = io_read(hub->signal_pipe[0], numbers, sizeof(numbers))) > 0) {
        if (hub->chained_wakeup_fd >= 0) {
            // Full or closed: then its owner is awake or gone.
            (void)io_write(hub->chained_wakeup_fd, numbers, (size_t)count);
        }
    }
    hub->needs |= HUB_NEEDS_SIGNALS;
    return false;
}

static void
lose_signal_pipe(struct ready_target *target, bool is_forked)
{
    (void)is_forked;
    HubObject *hub = CONTAINER_OF(target, HubObject, signal_target);
    for (int end = 0; end < 2; end++) {
        if (hub->signal_pipe[end] >= 0) {
            reactor_release(&hub->reactor, hub->signal_pipe[end]);
            io_close(hub->signal_pipe[end]);
            hub->signal_pipe[end] = -1;
        }
    }
}

int
hub_open_signal_pipe(HubObject *hub)
{
    if (!hub->is_main_thread || hub->signal_pipe[0] >= 0) {
        return 0;
    }
    hub->signal_target = (struct ready_target){take_signal_byte, lose_signal_pipe};
    int error = io_pipe(hub->signal_pipe);
    if (error == 0) {
        error = reactor_claim(&hub->reactor, hub->signal_pipe[0], &hub->signal_target);
    }
    if (error < 0) {
        lose_signal_pipe(&hub->signal_target, false);
        raise_errno(error);
        return -1;
    }
    return 0;
}

// Makes [fd] Python's wake-up descriptor and stores the one before. A byte that finds the
// pipe full is no loss: the hub is awake then.
static int
set_wakeup_fd(int fd, int *previous)
{
    PyObject *function = find_in_signal_module("set_wakeup_fd");
    PyObject *arguments = function == NULL ? NULL : Py_BuildValue("(i)", fd);
    PyObject *keywords = arguments == NULL
                             ? NULL
                             : Py_BuildValue("{s:O}", "warn_on_full_buffer", Py_False);
    PyObject *result =
        keywords == NULL ? NULL : PyObject_Call(function, arguments, keywords);
    Py_XDECREF(function);
    Py_XDECREF(arguments);
    Py_XDECREF(keywords);
    if (result == NULL) {
        return -1;
    }
    *previous = (int)PyLong_AsLong(result);
    Py_DECREF(result);
    return 0;
}

// --- Taking over and giving back -----------------------------------------------------------

int
hub_take_signals(HubObject *hub)
{
    if (!hub->is_main_thread || hub->has_signals) {
        return 0;
    }
    if (hub_open_signal_pipe(hub) < 0) {
        // not reached: no more descriptors; in a forked child it is opened anew
        return -1;
    }
    // By edges: all is read at each, and a read that fails is not tried again at once.
    int error =
        reactor_register(&hub->reactor, hub->signal_pipe[0], EVENT_READ, ENGINE_EDGE);
    if (error < 0) {
        raise_errno(error);
        return -1;
    }
    if (set_wakeup_fd(hub->signal_pipe[1], &hub->chained_wakeup_fd) < 0) {
        lose_signal_pipe(&hub->signal_target, false);
        return -1;
    }
    hub->has_signals = true;
    // One that came while we were in C already has written no byte that would end a poll.
    hub->needs |= HUB_NEEDS_SIGNALS;
    PyObject *python_handler = default_handler();
    int is_default = python_handler == NULL ? -1 : handles_interrupt(python_handler);
    Py_XDECREF(python_handler);
    if (is_default > 0) {
        return set_interrupt_handler(hub->state->interrupt_handler);
    }
    return is_default;
}

int
hub_run_signal_handlers(HubObject *hub)
{
    hub->needs &= ~(unsigned)HUB_NEEDS_SIGNALS;
    return PyErr_CheckSignals();
}

// What the hub took over, as far as nobody has taken it from the hub since.
static void
give_back(HubObject *hub)
{
    hub->has_signals = false;
    PyObject *exception = take_exception();
    PyObject *python_handler = default_handler();
    if (python_handler != NULL && handles_interrupt(hub->state->interrupt_handler) > 0) {
        set_interrupt_handler(python_handler);
    }
    Py_XDECREF(python_handler);
    int ours, unused;
    if (hub->signal_pipe[1] >= 0 && set_wakeup_fd(-1, &ours) == 0) {
        // If somebody set another one after us, it is theirs to end.
        int next = ours == hub->signal_pipe[1] ? hub->chained_wakeup_fd : ours;
        if (next >= 0 && set_wakeup_fd(next, &unused) < 0) {
            PyErr_Clear(); // closed meanwhile: its owner has no use for it
        }
    }
    if (PyErr_Occurred()) {
        report_exception((PyObject *)hub);
    }
    restore_exception(exception);
}

void
hub_give_signals_back(HubObject *hub)
{
    if (hub->has_signals) {
        give_back(hub);
    }
    if (hub->signal_pipe[0] >= 0) {
        lose_signal_pipe(&hub->signal_target, false);
    }
}

bool
signals_may_wake(HubObject *hub)
{
    if (!hub->is_main_thread) {
        return false; // not reached: other threads' waits end otherwise
    }
    PyObject *python_handler = default_handler();
    Py_XDECREF(python_handler); // the signal module has it
    for (int number = 1; number < NSIG; number++) {
        PyObject *handler = call_signal_module("getsignal", "(i)", number);
        if (handler == NULL) {
            PyErr_Clear(); // not a signal number here
            continue;
        }
        // SIG_DFL and SIG_IGN are numbers. To be interrupted is no way to go on.
        bool is_theirs = PyCallable_Check(handler) && !PyLong_Check(handler) &&
                         handler != python_handler &&
                         handler != hub->state->interrupt_handler;
        Py_DECREF(handler);
        if (is_theirs) {
            return true;
        }
    }
    PyErr_Clear();
    return false;
}
