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
    struct list_node hub_link;  // on hub->parking_lots if the end of a hub wakes them too
    bool is_external;           // what wakes them is no task: no deadlock while they wait
    bool is_over;               // that hub has ended
} ParkingLotObject;

void
parking_lots_end(HubObject *hub)
{
    struct list_node *node;
    while ((node = list_take_first(&hub->parking_lots)) != NULL) {
        ParkingLotObject *lot = CONTAINER_OF(node, ParkingLotObject, hub_link);
        lot->is_over = true;
        parking_wake_all(&lot->waiters, WOKEN_READY);
    }
}

static int
check_lot(const ParkingLotObject *lot)
{
    if (lot->is_over) {
        PyErr_SetString(PyExc_RuntimeError, "the hub was closed");
        return -1;
    }
    return 0;
}

PyDoc_STRVAR(
    park_doc,
    "park($self, operation, /, timeout=None)\n--\n\n"
    "Wait until unpark() wakes the caller. True if it did, False after timeout seconds.\n\n"
    "operation: a str that names the wait in reports. RuntimeError if the hub of the lot has\n"
    "ended, before or meanwhile. For any thread. Switches.");

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
    if (hub == NULL || check_lot(lot) < 0) {
        return NULL;
    }
    int status = hub_park(hub, NULL, &lot->waiters,
                          lot->is_external ? WAITS_FOR_KERNEL : WAITS_FOR_OTHERS,
                          timeout_ns, operation, NULL);
    if (status == PARK_FORFEITED) {
        // not reached: cancelled by the thread that wakes it
        parking_wake_first(&lot->waiters, WOKEN_READY);
    }
    bool has_failed = status < 0 || check_lot(lot) < 0;
    return has_failed ? NULL : PyBool_FromLong(status == WOKEN_READY);
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
    static char *names[] = {"external", "hub", NULL};
    int is_external = 0;
    HubObject *hub = NULL;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "|pO!:ParkingLot", names,
                                     &is_external, module_state_of_type(type)->hub_type,
                                     &hub)) {
        return NULL;
    }
    if (hub != NULL && !is_alive(hub)) {
        PyErr_SetString(PyExc_RuntimeError, "this hub is closed");
        return NULL;
    }
    ParkingLotObject *lot = (ParkingLotObject *)type->tp_alloc(type, 0);
    if (lot == NULL) {
        return NULL;
    }
    lot->state = module_state_of_type(type);
    lot->is_external = is_external != 0;
    list_init(&lot->waiters);
    if (hub != NULL) {
        list_append(&hub->parking_lots, &lot->hub_link);
    }
    return (PyObject *)lot;
}

// Whoever waits holds the lot through its call, so none of those is here.
static void
ParkingLot_dealloc(ParkingLotObject *lot)
{
    PyTypeObject *type = Py_TYPE(lot);
    list_remove(&lot->hub_link);
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
    "ParkingLot(external=False, hub=...)\n--\n\n"
    "A queue of waiting tasks and threads, under what waits for others.\n\n"
    "external: who wakes them is no task, so that their waiting is no deadlock. hub: one\n"
    "whose end ends their waiting. RuntimeError if it has ended.");

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
