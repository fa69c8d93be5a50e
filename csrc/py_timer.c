// py_timer.c: functions that the hub calls after a time, once or again and again.
//
// A timer that is due queues a hub call, so its function runs in the hub greenlet, where
// nobody may wait. The hub owns a reference to each handle from its making until it has been
// called for the last time or was cancelled; then the function is let go of, too.

#include "py_timer.h"

#include <math.h>
#include <structmember.h>

#include "py_convert.h"

typedef struct {
    PyObject_HEAD
    HubObject *hub;        // owned
    struct hub_call call;  // queued while it is due
    struct timer timer;    // armed until it is due
    struct list_node link; // on hub->timers while it is still to be called
    PyObject *function;    // owned; NULL when it is over
    PyObject *arguments;   // owned tuple; NULL likewise
    uint64_t interval_ns;  // between two calls, 0 = there is only one
    uint64_t when_ns;      // of the hub's clock: when it is due next, or was last
} TimerHandleObject;

// It will not be called again. May be the last reference to it.
static void
end_timer(TimerHandleObject *handle)
{
    HubObject *hub = handle->hub;
    if (!list_is_linked(&handle->link)) {
        return;
    }
    list_remove(&handle->link);
    list_remove(&handle->call.link);
    timer_wheel_unlink(&hub->reactor.timers, &handle->timer);
    if (--hub->timer_count == 0) {
        hub_note_end(hub);
    }
    Py_CLEAR(handle->function);
    Py_CLEAR(handle->arguments);
    Py_DECREF(handle);
}

static void
become_due(struct timer *timer)
{
    TimerHandleObject *handle = CONTAINER_OF(timer, TimerHandleObject, timer);
    hub_queue_call(handle->hub, &handle->call);
}

// Arms a repeating timer for its next time. Those that were missed are left out, but the
// rhythm stays.
static void
arm_again(TimerHandleObject *handle)
{
    struct reactor *reactor = &handle->hub->reactor;
    uint64_t now_ns = reactor_now_ns(reactor);
    handle->when_ns += handle->interval_ns;
    if (handle->when_ns <= now_ns) {
        uint64_t late_ns = (now_ns - handle->when_ns) % handle->interval_ns;
        handle->when_ns = now_ns - late_ns + handle->interval_ns;
    }
    reactor_arm_at(reactor, &handle->timer, handle->when_ns);
}

static void
run_timer(struct hub_call *call)
{
    TimerHandleObject *handle = CONTAINER_OF(call, TimerHandleObject, call);
    HubObject *hub = handle->hub;
    // The call may cancel it, which lets go of both.
    PyObject *function = Py_NewRef(handle->function);
    PyObject *arguments = Py_NewRef(handle->arguments);
    if (handle->interval_ns > 0) {
        arm_again(handle);
    }
    else {
        end_timer(handle);
    }
    PyObject *result = PyObject_CallObject(function, arguments);
    if (result == NULL) {
        hub_take_exception(hub, function);
    }
    Py_XDECREF(result);
    Py_DECREF(function);
    Py_DECREF(arguments);
}

// Timers end before the calls of their hub do, and in a forked child they are abandoned.
static void
drop_timer(struct hub_call *call, bool is_forked)
{
    (void)call;
    (void)is_forked;
}

void
timers_cancel_all(HubObject *hub)
{
    while (!list_is_empty(&hub->timers)) {
        end_timer(CONTAINER_OF(hub->timers.next, TimerHandleObject, link));
    }
}

void
timers_abandon(HubObject *hub)
{
    struct list_node *node;
    while ((node = list_take_first(&hub->timers)) != NULL) {
        TimerHandleObject *handle = CONTAINER_OF(node, TimerHandleObject, link);
        list_remove(&handle->call.link);
        timer_wheel_unlink(&hub->reactor.timers, &handle->timer);
    }
    hub->timer_count = 0;
}

// --- Making -----------------------------------------------------------------------------

// Seconds that are a finite number, to nanoseconds. 0, or -1 with an exception.
static int
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
    if (hub_check_thread(hub, "this hub") < 0 ||
        convert_delay(arguments[0], &delay_ns) < 0) {
        return NULL;
    }
    if (hub->is_closed || hub->is_closing) {
        PyErr_Format(PyExc_RuntimeError, "this hub is %s",
                     hub->is_closed ? "closed" : "closing");
        return NULL;
    }
    if (repeats && delay_ns == 0) {
        PyErr_SetString(PyExc_ValueError, "call_every() needs more than 0 seconds");
        return NULL;
    }
    PyTypeObject *type = hub->state->timer_type;
    TimerHandleObject *handle = (TimerHandleObject *)type->tp_alloc(type, 0);
    if (handle == NULL) {
        return NULL;
    }
    handle->hub = (HubObject *)Py_NewRef((PyObject *)hub);
    handle->call.run = run_timer;
    handle->call.drop = drop_timer;
    timer_init(&handle->timer, become_due);
    handle->arguments = pack_tuple(arguments + 2, count - 2);
    if (handle->arguments == NULL) {
        Py_DECREF(handle);
        return NULL;
    }
    handle->function = Py_NewRef(arguments[1]);
    handle->interval_ns = repeats ? delay_ns : 0;
    handle->when_ns = reactor_now_ns(&hub->reactor) + delay_ns;
    reactor_arm_at(&hub->reactor, &handle->timer, handle->when_ns);
    list_append(&hub->timers, &handle->link);
    hub->timer_count++;
    return Py_NewRef((PyObject *)handle); // the other reference is the hub's
}

const char Hub_call_later_doc[] =
    "call_later($self, seconds, function, /, *args)\n--\n\n"
    "Have the hub call function(*args) after so many seconds; return a TimerHandle.\n\n"
    "seconds: 0 or more; more than a year counts as a year. It is never called early. The\n"
    "function must not wait; it may spawn() a task that does. What it raises is reported\n"
    "through sys.unraisablehook. Raises ValueError for a negative number, NaN or infinity,\n"
    "RuntimeError if the hub is closed or closing. Never switches.";

PyObject *
Hub_call_later(HubObject *hub, PyObject *const *arguments, Py_ssize_t count)
{
    return make_timer(hub, arguments, count, false);
}

const char Hub_call_every_doc[] =
    "call_every($self, seconds, function, /, *args)\n--\n\n"
    "Have the hub call function(*args) every so many seconds; return a TimerHandle.\n\n"
    "seconds: more than 0. The first call is one interval from now, each later one an\n"
    "interval after the time of the last, however long that took; times that were missed are\n"
    "left out. It goes on until it is cancelled, also after a call that raised. Otherwise as\n"
    "call_later().";

PyObject *
Hub_call_every(HubObject *hub, PyObject *const *arguments, Py_ssize_t count)
{
    return make_timer(hub, arguments, count, true);
}

// --- The type ---------------------------------------------------------------------------

PyDoc_STRVAR(cancel_doc,
             "cancel($self, /)\n--\n\n"
             "Have the function not be called any more; nothing if it is over. Never "
             "switches.");

static PyObject *
TimerHandle_cancel(TimerHandleObject *handle, PyObject *unused)
{
    (void)unused;
    if (hub_check_thread(handle->hub, "the timer") < 0) {
        return NULL;
    }
    end_timer(handle);
    Py_RETURN_NONE;
}

static PyObject *
get_when(TimerHandleObject *handle, void *unused)
{
    (void)unused;
    return PyFloat_FromDouble((double)handle->when_ns / 1e9);
}

static PyObject *
get_active(TimerHandleObject *handle, void *unused)
{
    (void)unused;
    return PyBool_FromLong(list_is_linked(&handle->link));
}

static PyObject *
TimerHandle_repr(TimerHandleObject *handle)
{
    if (!list_is_linked(&handle->link)) {
        return PyUnicode_FromString("<TimerHandle, over>");
    }
    return PyUnicode_FromFormat("<TimerHandle of %R>", handle->function);
}

static int
TimerHandle_traverse(TimerHandleObject *handle, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(handle));
    Py_VISIT(handle->hub);
    Py_VISIT(handle->function);
    Py_VISIT(handle->arguments);
    return 0;
}

static int
TimerHandle_clear(TimerHandleObject *handle)
{
    Py_CLEAR(handle->function);
    Py_CLEAR(handle->arguments);
    return 0;
}

// Only when it is over, for the hub holds it until then.
static void
TimerHandle_dealloc(TimerHandleObject *handle)
{
    PyTypeObject *type = Py_TYPE(handle);
    PyObject_GC_UnTrack(handle);
    TimerHandle_clear(handle);
    Py_CLEAR(handle->hub);
    type->tp_free(handle);
    Py_DECREF(type);
}

static PyMethodDef TimerHandle_methods[] = {
    {"cancel", (PyCFunction)TimerHandle_cancel, METH_NOARGS, cancel_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef TimerHandle_getset[] = {
    {"when", (getter)get_when, NULL,
     PyDoc_STR("When it is due next, or was last, in seconds of Hub.time."), NULL},
    {"active", (getter)get_active, NULL,
     PyDoc_STR("True while it is still to be called."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(TimerHandle_doc, "What Hub.call_later() and Hub.call_every() return.");

static PyType_Slot TimerHandle_slots[] = {
    {Py_tp_doc, (void *)TimerHandle_doc},   {Py_tp_dealloc, TimerHandle_dealloc},
    {Py_tp_traverse, TimerHandle_traverse}, {Py_tp_clear, TimerHandle_clear},
    {Py_tp_repr, TimerHandle_repr},         {Py_tp_methods, TimerHandle_methods},
    {Py_tp_getset, TimerHandle_getset},     {0, NULL},
};

static PyType_Spec TimerHandle_spec = {
    .name = "pycoronet.TimerHandle",
    .basicsize = sizeof(TimerHandleObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = TimerHandle_slots,
};

PyTypeObject *
timer_type_new(PyObject *module)
{
    return add_type(module, &TimerHandle_spec);
}
