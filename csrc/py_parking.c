// py_parking.c: the parking lot, under everything that waits for other tasks or threads.
//
// A lot is a queue of waiters and nothing else: whoever builds on it keeps the condition
// (a flag, a count, a result) and looks at it again after waking. First in, first out.

#include "py_hub.h"

#include "py_convert.h"

typedef struct {
    PyObject_HEAD
    HubObject *hub;           // owned
    struct list_node waiters; // by link, the one waiting longest first
    bool is_external;         // another thread wakes them: no deadlock while they wait
} ParkingLotObject;

PyDoc_STRVAR(
    park_doc,
    "park($self, operation, /, timeout=None)\n--\n\n"
    "Wait until unpark() wakes the caller. True if it did, False after timeout seconds.\n\n"
    "operation: a str that names the wait in reports. Switches.");

static PyObject *
ParkingLot_park(ParkingLotObject *lot, PyObject *const *arguments, Py_ssize_t count,
                PyObject *keyword_names)
{
    static const char *const names[] = {"operation", "timeout", NULL};
    static const struct parameters parameters = {"park", names, 1, 2};
    PyObject *values[2];
    int64_t timeout_ns;
    if (parse_arguments(&parameters, arguments, count, keyword_names, values) < 0 ||
        convert_timeout(values[1], &timeout_ns) < 0 ||
        hub_check_thread(lot->hub, "the parking lot") < 0) {
        return NULL;
    }
    const char *operation = PyUnicode_AsUTF8(values[0]);
    if (operation == NULL) {
        return NULL;
    }
    int status = hub_park(lot->hub, NULL, &lot->waiters,
                          lot->is_external ? WAITS_FOR_KERNEL : WAITS_FOR_OTHERS,
                          timeout_ns, operation, NULL);
    return status < 0 ? NULL : PyBool_FromLong(status == WOKEN_READY);
}

PyDoc_STRVAR(
    unpark_doc,
    "unpark($self, /)\n--\n\n"
    "Wake the one who waits longest; True if there was one. For the hub's own thread.");

static PyObject *
ParkingLot_unpark(ParkingLotObject *lot, PyObject *unused)
{
    (void)unused;
    if (hub_check_thread(lot->hub, "the parking lot") < 0) {
        return NULL;
    }
    struct list_node *node;
    while ((node = list_take_first(&lot->waiters)) != NULL) {
        // One that was cancelled or timed out before it could leave is passed over.
        if (waiter_wake(lot->hub, CONTAINER_OF(node, struct waiter, link), WOKEN_READY)) {
            Py_RETURN_TRUE;
        }
    }
    Py_RETURN_FALSE;
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
    HubObject *hub = hub_get(PyType_GetModuleState(type));
    ParkingLotObject *lot =
        hub == NULL ? NULL : (ParkingLotObject *)type->tp_alloc(type, 0);
    if (lot == NULL) {
        return NULL;
    }
    lot->hub = (HubObject *)Py_NewRef((PyObject *)hub);
    lot->is_external = is_external != 0;
    list_init(&lot->waiters);
    return (PyObject *)lot;
}

static int
ParkingLot_traverse(ParkingLotObject *lot, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(lot));
    Py_VISIT(lot->hub);
    return 0;
}

// Whoever waits holds the lot through its call, so there are no waiters here.
static void
ParkingLot_dealloc(ParkingLotObject *lot)
{
    PyTypeObject *type = Py_TYPE(lot);
    PyObject_GC_UnTrack(lot);
    Py_CLEAR(lot->hub);
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
    "A queue of waiting tasks, under what waits for tasks or threads.\n\n"
    "external: they are woken on behalf of another thread, so that their waiting is no\n"
    "deadlock.");

static PyType_Slot ParkingLot_slots[] = {
    {Py_tp_doc, (void *)ParkingLot_doc}, {Py_tp_new, ParkingLot_new},
    {Py_tp_dealloc, ParkingLot_dealloc}, {Py_tp_traverse, ParkingLot_traverse},
    {Py_tp_methods, ParkingLot_methods}, {0, NULL},
};

static PyType_Spec ParkingLot_spec = {
    .name = "pycoronet._coronet.ParkingLot",
    .basicsize = sizeof(ParkingLotObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = ParkingLot_slots,
};

PyTypeObject *
parking_lot_type_new(PyObject *module)
{
    return add_type(module, &ParkingLot_spec);
}
