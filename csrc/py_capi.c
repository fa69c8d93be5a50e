// py_capi.c: the C API for other extensions.
//
// The functions behind pycoronet/include/pycoronet.h, which is their manual, and the capsule by
// which they are found. They are called without a module, so they take its state from the hub of
// the calling thread, or by import if the thread has none yet.
//
// A waiter is a queue of waiters as of py_parking.c and one bit: that somebody was woken when
// nobody was there. Who wakes them is mostly no task, so to wait is no deadlock.

#include "py_capi.h"

#include <errno.h>
#include <pycoronet.h>

#include "py_convert.h"
#include "py_hub.h"
#include "py_task.h"
#include "py_wait.h"

static_assert(PYCORONET_READ == EVENT_READ, "users see one set of values");
static_assert(PYCORONET_PRIORITY == EVENT_PRIORITY, "users see one set of values");
static_assert(PYCORONET_WRITE == EVENT_WRITE, "users see one set of values");
static_assert(PYCORONET_ERROR == EVENT_ERROR, "users see one set of values");
static_assert(PYCORONET_HANGUP == EVENT_HANGUP, "users see one set of values");

// --- Hubs and deadlines -----------------------------------------------------------------

// The state of the module; NULL with an exception if the interpreter has let go of it.
static struct module_state *
find_state(void)
{
    HubObject *hub = hub_peek();
    if (hub != NULL) {
        return hub->state;
    }
    PyObject *module = PyImport_ImportModule("pycoronet._coronet");
    struct module_state *state = module == NULL ? NULL : PyModule_GetState(module);
    Py_XDECREF(module); // sys.modules keeps it
    return state;
}

// The calling thread's hub, made if there is none. Borrowed, NULL with an exception.
static HubObject *
find_hub(void)
{
    struct module_state *state = find_state();
    return state == NULL ? NULL : hub_get(state);
}

static int64_t
now_ns(void)
{
    HubObject *hub = find_hub();
    return hub == NULL ? -1 : (int64_t)reactor_now_ns(&hub->reactor);
}

static int
deadline_after(PyObject *timeout, int64_t *deadline_ns)
{
    int64_t timeout_ns;
    HubObject *hub = find_hub();
    if (hub == NULL || convert_timeout(timeout, &timeout_ns) < 0) {
        return -1;
    }
    *deadline_ns = timeout_ns < 0 ? PYCORONET_NEVER
                                  : (int64_t)reactor_now_ns(&hub->reactor) + timeout_ns;
    return 0;
}

// What is left until a deadline; -1 if it never comes. 0, or -1 with a ValueError.
static int
convert_deadline(HubObject *hub, int64_t deadline_ns, int64_t *timeout_ns)
{
    if (deadline_ns < 0) {
        PyErr_SetString(PyExc_ValueError,
                        "deadline_ns must not be negative: it is a point of "
                        "pycoronet_now_ns()'s clock; PYCORONET_NEVER sets no limit");
        return -1;
    }
    if (deadline_ns == PYCORONET_NEVER) {
        *timeout_ns = -1;
        return 0;
    }
    int64_t left_ns = deadline_ns - (int64_t)reactor_now_ns(&hub->reactor);
    *timeout_ns = left_ns < 0 ? 0 : left_ns;
    return 0;
}

// --- Descriptors and tasks --------------------------------------------------------------

static int
wait_descriptor(int fd, int events, int64_t deadline_ns)
{
    unsigned interest;
    int64_t timeout_ns;
    HubObject *hub = find_hub();
    if (hub == NULL || check_events((unsigned)events, &interest) < 0 ||
        convert_deadline(hub, deadline_ns, &timeout_ns) < 0) {
        return -1;
    }
    return hub_wait_fd(hub, fd, interest, timeout_ns);
}

static int
notify_closing(int fd)
{
    HubObject *hub = hub_peek();
    if (hub != NULL) {
        hub_notify_closing(hub, fd);
    }
    return 0;
}

static PyObject *
current_task(void)
{
    HubObject *hub = find_hub();
    return hub == NULL ? NULL : task_find_current(hub);
}

// --- Waiters ----------------------------------------------------------------------------

typedef struct {
    PyObject_HEAD
    struct list_node waiters; // by link, the one waiting longest first
    const char *operation;    // borrowed, for ever; for reports
    bool is_woken;            // when nobody waited: whoever parks next has it
} WaiterObject;

static void
Waiter_dealloc(WaiterObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    parking_clear(&self->waiters);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot Waiter_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Made and used by extensions in C.")},
    {Py_tp_dealloc, Waiter_dealloc},
    {0, NULL},
};

static PyType_Spec Waiter_spec = {
    .name = "pycoronet._coronet.Waiter",
    .basicsize = sizeof(WaiterObject),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Waiter_slots,
};

static PyObject *
waiter_new(const char *operation)
{
    struct module_state *state = find_state();
    WaiterObject *self =
        state == NULL
            ? NULL
            : (WaiterObject *)state->waiter_type->tp_alloc(state->waiter_type, 0);
    if (self != NULL) {
        list_init(&self->waiters);
        self->operation = operation == NULL ? "park" : operation;
    }
    return (PyObject *)self;
}

// The object as a waiter, borrowed; NULL with a TypeError. It asks for no state, so that a
// thread may wake without having a hub, and while the interpreter ends.
static WaiterObject *
check_waiter(PyObject *object)
{
    if (object != NULL && Py_TYPE(object)->tp_dealloc == (destructor)Waiter_dealloc) {
        return (WaiterObject *)object;
    }
    PyErr_Format(PyExc_TypeError,
                 "a waiter of pycoronet_waiter_new() is needed, not %.100s",
                 object == NULL ? "NULL" : Py_TYPE(object)->tp_name);
    return NULL;
}

// Wakes the first, or has the next one not wait.
static void
wake_next(WaiterObject *waiter)
{
    if (parking_wake_first(&waiter->waiters, WOKEN_READY) == NULL) {
        waiter->is_woken = true;
    }
}

static int
wake(PyObject *object)
{
    WaiterObject *waiter = check_waiter(object);
    if (waiter == NULL) {
        return -1;
    }
    wake_next(waiter);
    return 0;
}

// Takes the wake that there is, or waits for one. As of hub_park().
static int
take_wake(HubObject *hub, WaiterObject *waiter, int64_t timeout_ns)
{
    if (!waiter->is_woken) {
        return hub_park(hub, NULL, &waiter->waiters, WAITS_FOR_KERNEL, timeout_ns,
                        waiter->operation, NULL);
    }
    waiter->is_woken = false;
    return hub_count_operation(hub) < 0 ? PARK_FORFEITED : WOKEN_READY;
}

static int
park(PyObject *object, int64_t deadline_ns)
{
    WaiterObject *waiter = check_waiter(object);
    int64_t timeout_ns;
    HubObject *hub = waiter == NULL ? NULL : find_hub();
    if (hub == NULL || convert_deadline(hub, deadline_ns, &timeout_ns) < 0) {
        return -1;
    }
    Py_INCREF(waiter); // while it waits the caller's reference may go
    int status = take_wake(hub, waiter, timeout_ns);
    if (status == PARK_FORFEITED) {
        wake_next(waiter);
    }
    if (status == WOKEN_TIMEOUT) {
        raise_os_error(PyExc_TimeoutError, ETIMEDOUT, "%s timed out", waiter->operation);
    }
    Py_DECREF(waiter);
    return status == WOKEN_READY ? 0 : -1;
}

// --- The capsule ------------------------------------------------------------------------

static const struct pycoronet_api api_table = {
    .abi_version = PYCORONET_ABI_VERSION,
    .size = sizeof(struct pycoronet_api),
    .now_ns = now_ns,
    .deadline_after = deadline_after,
    .wait_fd = wait_descriptor,
    .notify_closing = notify_closing,
    .current_task = current_task,
    .waiter_new = waiter_new,
    .park = park,
    .wake = wake,
};

int
capi_add(PyObject *module)
{
    struct module_state *state = module_state_of(module);
    state->waiter_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &Waiter_spec, NULL);
    PyObject *capsule = PyCapsule_New((void *)&api_table, PYCORONET_CAPSULE_NAME, NULL);
    int error = state->waiter_type == NULL || capsule == NULL
                    ? -1 // not reached: imports have memory here
                    : PyModule_AddObjectRef(module, "_C_API", capsule);
    Py_XDECREF(capsule);
    return error;
}
