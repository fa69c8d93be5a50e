// py_once.c: once(): a function that is called when a descriptor is ready.
//
// A callback's answer to wait_fd(), in the same place beside the descriptor. Either an event
// or the timer queues the handle's call; when that runs, registration and timer have ended.

#include "py_once.h"

#include "py_convert.h"
#include "py_handle.h"
#include "py_wait.h"

typedef struct {
    HandleObject handle;
    struct foreign_wait *place; // borrowed while the handle is active
    struct timer timer;
} OnceHandleObject;

static OnceHandleObject *
once_of(HandleObject *handle)
{
    return CONTAINER_OF(handle, OnceHandleObject, handle);
}

static void
end_once(HandleObject *handle)
{
    foreign_leave(once_of(handle)->place);
}

static void
time_out(struct timer *timer)
{
    HandleObject *handle = &CONTAINER_OF(timer, OnceHandleObject, timer)->handle;
    hub_queue_call(handle->hub, &handle->call);
}

static void
run_once(struct hub_call *call)
{
    HandleObject *handle = handle_of_call(call);
    HubObject *hub = handle->hub;
    PyObject *function = Py_NewRef(handle->function);
    PyObject *ready = PyLong_FromUnsignedLong(once_of(handle)->place->seen);
    handle_end(handle);
    PyObject *result = ready == NULL ? NULL : PyObject_CallOneArg(function, ready);
    if (result == NULL) {
        hub_take_exception(hub, function);
    }
    Py_XDECREF(result);
    Py_XDECREF(ready);
    Py_DECREF(function);
}

const char once_doc[] =
    "once($module, /, fd, events, function, *, timeout=None)\n--\n\n"
    "Have function(ready) called, once, when a descriptor is ready; return a handle.\n\n"
    "fd: an int or an object with fileno(), but not an sk_conn. events: READ, WRITE or\n"
    "PRIORITY, or-ed together. ready: what it is ready for, perhaps with HANGUP and other bits\n"
    "of poll(2); 0 if timeout seconds have passed before; HANGUP after notify_closing(). The\n"
    "function is a callback of the hub: it must not wait, and what it raises is reported\n"
    "through sys.unraisablehook. cancel() of the handle ends it; until then it keeps\n"
    "Hub.run() going. Raises BusyError if somebody waits for the same, ValueError for a\n"
    "regular file, OSError for an fd that is not open. Never switches.\n\n"
    "Source: libevent's event_base_once.";

PyObject *
once_call(PyObject *module, PyObject *const *arguments, Py_ssize_t count,
          PyObject *keyword_names)
{
    static const char *const names[] = {"fd", "events", "function", "timeout", NULL};
    static const struct parameters parameters = {"once", names, 3, 3};
    PyObject *values[4];
    unsigned events;
    int64_t timeout_ns;
    if (parse_arguments(&parameters, arguments, count, keyword_names, values) < 0 ||
        convert_events(values[1], &events) < 0 ||
        convert_timeout(values[3], &timeout_ns) < 0) {
        return NULL;
    }
    if (!PyCallable_Check(values[2])) {
        PyErr_SetString(PyExc_TypeError, "once() needs something callable third");
        return NULL;
    }
    int fd = PyObject_AsFileDescriptor(values[0]);
    HubObject *hub = fd < 0 ? NULL : hub_get(module_state_of(module));
    if (hub == NULL || handle_check_hub(hub) < 0) {
        return NULL;
    }
    HandleObject *handle =
        handle_new(hub->state->once_type, hub, values[2], NULL, run_once, end_once);
    if (handle == NULL) {
        return NULL;
    }
    OnceHandleObject *once = once_of(handle);
    timer_init(&once->timer, time_out);
    handle->timer = &once->timer;
    once->place = foreign_enter(hub, fd, events, &handle->call);
    if (once->place == NULL) {
        Py_DECREF((PyObject *)handle);
        return NULL;
    }
    if (timeout_ns >= 0) {
        reactor_arm(&hub->reactor, &once->timer, (uint64_t)timeout_ns);
    }
    handle_start(handle);
    return (PyObject *)handle;
}

PyTypeObject *
once_type_new(PyObject *module)
{
    static PyGetSetDef attributes[] = {
        {"active", handle_get_active, NULL, handle_active_doc, NULL},
        {NULL, NULL, NULL, NULL, NULL},
    };
    return handle_type_new(module, "pycoronet.OnceHandle", sizeof(OnceHandleObject),
                           "What once() returns.\n\nSource: libevent's struct event.",
                           attributes);
}
