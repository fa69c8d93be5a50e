// py_timer.c: functions that the hub calls after a time, once or again and again.
//
// A timer that is due queues its handle's call, which runs in the hub greenlet.

#include "py_timer.h"

#include <math.h>

#include "py_convert.h"
#include "py_handle.h"

typedef struct {
    HandleObject handle;  // its extra is the tuple of arguments
    struct timer timer;   // armed until it is due
    uint64_t interval_ns; // between two calls, 0 = there is only one
    uint64_t when_ns;     // of the hub's clock: when it is due next, or was last
} TimerHandleObject;

static TimerHandleObject *
timer_of(HandleObject *handle)
{
    return CONTAINER_OF(handle, TimerHandleObject, handle);
}

static void
become_due(struct timer *timer)
{
    HandleObject *handle = &CONTAINER_OF(timer, TimerHandleObject, timer)->handle;
    hub_queue_call(handle->hub, &handle->call);
}

// Arms a repeating timer for its next time. Those that were missed are left out, but the
// rhythm stays.
static void
arm_again(TimerHandleObject *timer)
{
    struct reactor *reactor = &timer->handle.hub->reactor;
    uint64_t now_ns = reactor_now_ns(reactor);
    timer->when_ns += timer->interval_ns;
    if (timer->when_ns <= now_ns) {
        uint64_t late_ns = (now_ns - timer->when_ns) % timer->interval_ns;
        timer->when_ns = now_ns - late_ns + timer->interval_ns;
    }
    reactor_arm_at(reactor, &timer->timer, timer->when_ns);
}

static void
run_timer(struct hub_call *call)
{
    HandleObject *handle = handle_of_call(call);
    HubObject *hub = handle->hub;
    // The call may cancel it, which lets go of both.
    PyObject *function = Py_NewRef(handle->function);
    PyObject *arguments = Py_NewRef(handle->extra);
    if (timer_of(handle)->interval_ns > 0) {
        arm_again(timer_of(handle));
    }
    else {
        handle_end(handle);
    }
    PyObject *result = PyObject_CallObject(function, arguments);
    if (result == NULL) {
        hub_take_exception(hub, function);
    }
    Py_XDECREF(result);
    Py_DECREF(function);
    Py_DECREF(arguments);
}

// --- Making -----------------------------------------------------------------------------

int
convert_delay(PyObject *seconds, uint64_t *delay_ns)
{
    double value = PyFloat_AsDouble(seconds);
    if (value == -1.0 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) {
            return -1;
        }
        PyErr_Clear(); // an int beyond all floats
        value = PyObject_RichCompareBool(seconds, Py_False, Py_LT) == 1 ? -1.0 : 1e300;
    }
    // Written so that NaN is refused, too.
    if (!(value >= 0) || isinf(value)) {
        PyErr_SetString(PyExc_ValueError,
                        "seconds must be a finite number that is not negative");
        return -1;
    }
    int64_t timeout_ns;
    if (convert_timeout(seconds, &timeout_ns) < 0) {
        return -1;
    }
    *delay_ns = (uint64_t)timeout_ns;
    return 0;
}

static PyObject *
make_timer(HubObject *hub, PyObject *const *arguments, Py_ssize_t count, bool repeats)
{
    const char *caller = repeats ? "call_every" : "call_later";
    uint64_t delay_ns;
    if (count < 2 || !PyCallable_Check(arguments[1])) {
        return PyErr_Format(PyExc_TypeError,
                            "%s() needs seconds and then something callable", caller);
    }
    if (convert_delay(arguments[0], &delay_ns) < 0 || handle_check_hub(hub) < 0) {
        return NULL;
    }
    if (repeats && delay_ns == 0) {
        PyErr_SetString(PyExc_ValueError, "call_every() needs more than 0 seconds");
        return NULL;
    }
    PyObject *values = pack_tuple(arguments + 2, count - 2);
    HandleObject *handle = values == NULL
                               ? NULL
                               : handle_new(hub->state->timer_type, hub, arguments[1],
                                            values, run_timer, NULL);
    Py_XDECREF(values);
    if (handle == NULL) {
        return NULL;
    }
    TimerHandleObject *timer = timer_of(handle);
    timer_init(&timer->timer, become_due);
    handle->timer = &timer->timer;
    timer->interval_ns = repeats ? delay_ns : 0;
    timer->when_ns = reactor_now_ns(&hub->reactor) + delay_ns;
    reactor_arm_at(&hub->reactor, &timer->timer, timer->when_ns);
    handle_start(handle);
    return (PyObject *)handle;
}

PyDoc_STRVAR(
    call_later_doc,
    "call_later($self, seconds, function, /, *args)\n--\n\n"
    "Have the hub call function(*args) after so many seconds; return a TimerHandle.\n\n"
    "seconds: 0 or more; more than a year counts as a year. It is never called early. The\n"
    "function must not wait; it may spawn() a task that does. What it raises is reported\n"
    "through sys.unraisablehook. Raises ValueError for a negative number, NaN or infinity,\n"
    "RuntimeError if the hub is closed or closing. Never switches.\n\n"
    "Source: libevent's timer events.");

PyObject *
Hub_call_later(HubObject *hub, PyObject *const *arguments, Py_ssize_t count)
{
    return make_timer(hub, arguments, count, false);
}

PyDoc_STRVAR(
    call_every_doc,
    "call_every($self, seconds, function, /, *args)\n--\n\n"
    "Have the hub call function(*args) every so many seconds; return a TimerHandle.\n\n"
    "seconds: more than 0. The first call is one interval from now, each later one an\n"
    "interval after the time of the last, however long that took; times that were missed\n"
    "are left out. It goes on until it is cancelled, also after a call that raised.\n"
    "Otherwise as call_later(). Never switches.\n\n"
    "Source: libevent's timer events, with EV_PERSIST.");

static PyObject *
Hub_call_every(HubObject *hub, PyObject *const *arguments, Py_ssize_t count)
{
    return make_timer(hub, arguments, count, true);
}

PyMethodDef hub_timer_methods[] = {
    {"call_later", (PyCFunction)(void (*)(void))Hub_call_later, METH_FASTCALL,
     call_later_doc},
    {"call_every", (PyCFunction)(void (*)(void))Hub_call_every, METH_FASTCALL,
     call_every_doc},
    {NULL, NULL, 0, NULL},
};

// --- The type ---------------------------------------------------------------------------

static PyObject *
get_when(PyObject *handle, void *unused)
{
    (void)unused;
    return PyFloat_FromDouble((double)((TimerHandleObject *)handle)->when_ns / 1e9);
}

static PyGetSetDef attributes[] = {
    {"when", get_when, NULL,
     PyDoc_STR("When it is due next, or was last, in seconds of Hub.time."), NULL},
    {"active", handle_get_active, NULL, handle_active_doc, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject *
timer_type_new(PyObject *module)
{
    return handle_type_new(module, "pycoronet.TimerHandle", sizeof(TimerHandleObject),
                           "What Hub.call_later() and Hub.call_every() return.\n\n"
                           "Source: libevent's struct event.",
                           attributes);
}
