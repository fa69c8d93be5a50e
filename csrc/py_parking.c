// py_parking.c: queues of waiters of any hub and any thread, and the parking lot.
//
// Under everything that waits for other tasks or threads. A queue is a list of waiters and
// nothing else: whoever builds on it keeps the condition (a flag, a count, an owner). First
// in, first out.
//
// Each waiter is parked in the hub of its own thread, so a coroutine never blocks its thread,
// and a thread without coroutines waits as the main program of a hub. To wake one of another
// thread is to put it on the ready list of its hub, which the GIL allows, and to end the poll
// that this hub may be in. So it allocates nothing and cannot fail.

#include "py_hub.h"

#include "py_convert.h"
#include "py_task.h"

struct waiter *
parking_prepare(struct module_state *state, const char *operation, HubObject **hub)
{
    *hub = hub_get(state);
    return *hub == NULL ? NULL : hub_hold_waiter(*hub, operation);
}

// False for a hub that runs nobody any more: its thread has ended, or it was left behind by a
// fork.
static bool
is_alive(const HubObject *hub)
{
    return list_is_linked(&hub->state_link);
}

TaskObject *
parking_wake_first(struct list_node *queue, enum waiter_status status)
{
    struct list_node *node;
    while ((node = list_take_first(queue)) != NULL) {
        struct waiter *waiter = CONTAINER_OF(node, struct waiter, link);
        HubObject *hub = waiter->task->hub;
        if (is_alive(hub) && waiter_wake(hub, waiter, status)) {
            if (hub->is_polling) {
                hub->reactor.operations->wake(hub->reactor.engine);
            }
            return waiter->task;
        }
    }
    return NULL;
}

void
parking_wake_all(struct list_node *queue, enum waiter_status status)
{
    while (parking_wake_first(queue, status) != NULL) {
    }
}

void
parking_clear(struct list_node *queue)
{
    while (list_take_first(queue) != NULL) {
    }
}

// --- The parking lot --------------------------------------------------------------------

typedef struct {
    PyObject_HEAD
    struct module_state *state; // borrowed
    struct list_node waiters;   // by link, the one waiting longest first
    bool is_external;           // what wakes them is no task: no deadlock while they wait
} ParkingLotObject;

PyDoc_STRVAR(
    park_doc,
    "park($self, operation, /, timeout=None)\n--\n\n"
    "Wait until unpark() wakes the caller. True if it did, False after timeout seconds.\n\n"
    "operation: a str that names the wait in reports. For any thread. Switches.");

static PyObject *
ParkingLot_park(ParkingLotObject *lot, PyObject *const *arguments, Py_ssize_t count,
                PyObject *keyword_names)
{
    static const char *const names[] = {"operation", "timeout", NULL};
    static const struct parameters parameters = {"park", names, 1, 2};
    PyObject *values[2];
    int64_t timeout_ns;
    if (parse_arguments(&parameters, arguments, count, keyword_names, values) < 0 ||
        convert_timeout(values[1], &timeout_ns) < 0) {
        return NULL;
    }
    const char *operation = PyUnicode_AsUTF8(values[0]);
    if (operation == NULL) {
        return NULL;
    }
    HubObject *hub = hub_get(lot->state);
    if (hub == NULL) {
        return NULL;
    }
    int status = hub_park(hub, NULL, &lot->waiters,
                          lot->is_external ? WAITS_FOR_KERNEL : WAITS_FOR_OTHERS,
                          timeout_ns, operation, NULL);
    if (status == PARK_FORFEITED) {
        parking_wake_first(&lot->waiters, WOKEN_READY);
    }
    return status < 0 ? NULL : PyBool_FromLong(status == WOKEN_READY);
}

PyDoc_STRVAR(
    unpark_doc,
    "unpark($self, /)\n--\n\n"
    "Wake the one who waits longest; True if there was one. For any thread. Never switches.");

static PyObject *
ParkingLot_unpark(ParkingLotObject *lot, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(parking_wake_first(&lot->waiters, WOKEN_READY) != NULL);
}

static PyObject *
ParkingLot_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"external", NULL};
    int is_external = 0;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "|p:ParkingLot", names,
                                     &is_external)) {
        return NULL;
    }
    ParkingLotObject *lot = (ParkingLotObject *)type->tp_alloc(type, 0);
    if (lot == NULL) {
        return NULL;
    }
    lot->state = module_state_of_type(type);
    lot->is_external = is_external != 0;
    list_init(&lot->waiters);
    return (PyObject *)lot;
}

// Whoever waits holds the lot through its call, so none of those is here.
static void
ParkingLot_dealloc(ParkingLotObject *lot)
{
    PyTypeObject *type = Py_TYPE(lot);
    parking_clear(&lot->waiters);
    type->tp_free(lot);
    Py_DECREF(type);
}

static PyMethodDef ParkingLot_methods[] = {
    {"park", (PyCFunction)(void (*)(void))ParkingLot_park, METH_FASTCALL | METH_KEYWORDS,
     park_doc},
    {"unpark", (PyCFunction)ParkingLot_unpark, METH_NOARGS, unpark_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(
    ParkingLot_doc,
    "ParkingLot(external=False)\n--\n\n"
    "A queue of waiting tasks and threads, under what waits for others.\n\n"
    "external: who wakes them is no task, so that their waiting is no deadlock.");

static PyType_Slot ParkingLot_slots[] = {
    {Py_tp_doc, (void *)ParkingLot_doc},
    {Py_tp_new, ParkingLot_new},
    {Py_tp_dealloc, ParkingLot_dealloc},
    {Py_tp_methods, ParkingLot_methods},
    {0, NULL},
};

static PyType_Spec ParkingLot_spec = {
    .name = "pycoronet._coronet.ParkingLot",
    .basicsize = sizeof(ParkingLotObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = ParkingLot_slots,
};

PyTypeObject *
parking_lot_type_new(PyObject *module)
{
    return add_type(module, &ParkingLot_spec);
}
