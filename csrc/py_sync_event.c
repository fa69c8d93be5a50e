// py_sync_event.c: Event: a flag that any number of tasks and threads wait for.
//
// set() wakes all who wait then, in their order; each has seen the event, also if it is
// cleared again before the waiter runs.

#include "py_sync.h"

#include <structmember.h>

#include "py_convert.h"

typedef struct {
    PyObject_HEAD
    struct module_state *state; // borrowed
    PyObject *weak_references;
    struct list_node waiters; // by link, the one waiting longest first
    bool is_set;
} EventObject;

PyDoc_STRVAR(
    wait_doc,
    "wait($self, /, timeout=None)\n--\n\n"
    "Wait until the event is set. True if it is, False after timeout seconds.\n\n"
    "timeout: seconds, None waits for ever, 0 or less only looks. Raises RuntimeError in a hub\n"
    "callback that would have to wait. For any task and any thread. May switch.");

// [operation] and [subject], borrowed, name the wait in reports.
static PyObject *
wait_until_set(EventObject *event, int64_t timeout_ns, const char *operation,
               PyObject *subject)
{
    if (event->is_set) {
        return sync_count_operation() < 0 ? NULL : Py_NewRef(Py_True);
    }
    if (timeout_ns == 0) {
        Py_RETURN_FALSE;
    }
    HubObject *hub;
    struct waiter *waiter = parking_prepare(event->state, operation, &hub);
    if (waiter == NULL) {
        return NULL;
    }
    if (event->is_set) {
        // not reached: another thread, since the first look
        hub_release_waiter(hub, waiter);
        Py_RETURN_TRUE;
    }
    int status =
        parking_wait(hub, waiter, &event->waiters, timeout_ns, operation, subject);
    return status < 0 ? NULL : PyBool_FromLong(status == WOKEN_READY);
}

static PyObject *
Event_wait(EventObject *event, PyObject *const *arguments, Py_ssize_t count,
           PyObject *keyword_names)
{
    static const char *const names[] = {"timeout", NULL};
    static const struct parameters parameters = {"wait", names, 0, 1};
    PyObject *timeout;
    int64_t timeout_ns;
    if (parse_arguments(&parameters, arguments, count, keyword_names, &timeout) < 0 ||
        sync_convert_timeout(timeout, &timeout_ns) < 0) {
        return NULL;
    }
    return wait_until_set(event, timeout_ns, "wait", (PyObject *)event);
}

PyDoc_STRVAR(wait_as_doc, "_wait_as($self, operation, subject, timeout, /)\n--\n\n"
                          "wait(), which reports call by that str and subject.");

static PyObject *
Event_wait_as(EventObject *event, PyObject *const *arguments, Py_ssize_t count)
{
    static const char *const names[] = {"operation", "subject", "timeout", NULL};
    static const struct parameters parameters = {"_wait_as", names, 3, 3};
    PyObject *values[3];
    int64_t timeout_ns;
    if (parse_arguments(&parameters, arguments, count, NULL, values) < 0 ||
        sync_convert_timeout(values[2], &timeout_ns) < 0) {
        return NULL;
    }
    const char *operation = PyUnicode_AsUTF8(values[0]);
    return operation == NULL ? NULL
                             : wait_until_set(event, timeout_ns, operation, values[1]);
}

PyDoc_STRVAR(set_doc,
             "set($self, /)\n--\n\n"
             "Set the event and wake all who wait. For any thread. Never switches.");

static PyObject *
Event_set(EventObject *event, PyObject *unused)
{
    (void)unused;
    event->is_set = true;
    parking_wake_all(&event->waiters, WOKEN_READY);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    clear_doc,
    "clear($self, /)\n--\n\n"
    "Have wait() wait again. Who was woken before has seen the event all the same. Never\n"
    "switches.");

static PyObject *
Event_clear(EventObject *event, PyObject *unused)
{
    (void)unused;
    event->is_set = false;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(is_set_doc,
             "is_set($self, /)\n--\n\nTrue if the event is set. Never switches.");

static PyObject *
Event_is_set(EventObject *event, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(event->is_set);
}

static PyObject *
Event_repr(EventObject *event)
{
    PyObject *name = sync_type_name((PyObject *)event);
    PyObject *text = name == NULL ? NULL
                                  : PyUnicode_FromFormat("<%U at %p: %s>", name, event,
                                                         event->is_set ? "set" : "unset");
    Py_XDECREF(name);
    return text;
}

static PyObject *
Event_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    (void)arguments; // a subclass may take others
    (void)keywords;
    EventObject *event = (EventObject *)type->tp_alloc(type, 0);
    if (event != NULL) {
        event->state = module_state_of_type(type);
        list_init(&event->waiters);
    }
    return (PyObject *)event;
}

static int
Event_init(EventObject *event, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {NULL};
    (void)event;
    return PyArg_ParseTupleAndKeywords(arguments, keywords, ":Event", names) ? 0 : -1;
}

static void
Event_dealloc(EventObject *event)
{
    PyTypeObject *type = Py_TYPE(event);
    if (event->weak_references != NULL) {
        PyObject_ClearWeakRefs((PyObject *)event);
    }
    parking_clear(&event->waiters);
    type->tp_free(event);
    Py_DECREF(type);
}

static PyMethodDef Event_methods[] = {
    {"wait", (PyCFunction)(void (*)(void))Event_wait, METH_FASTCALL | METH_KEYWORDS,
     wait_doc},
    {"_wait_as", (PyCFunction)(void (*)(void))Event_wait_as, METH_FASTCALL, wait_as_doc},
    {"set", (PyCFunction)Event_set, METH_NOARGS, set_doc},
    {"clear", (PyCFunction)Event_clear, METH_NOARGS, clear_doc},
    {"is_set", (PyCFunction)Event_is_set, METH_NOARGS, is_set_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef Event_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(EventObject, weak_references), READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(Event_doc,
             "Event()\n--\n\n"
             "A flag to wait for, of threading's meaning. It is not set at first.\n\n"
             "For the tasks of all hubs and all threads.\n\n"
             "Source: Python's threading.Event.");

static PyType_Slot Event_slots[] = {
    {Py_tp_doc, (void *)Event_doc}, {Py_tp_new, Event_new},
    {Py_tp_init, Event_init},       {Py_tp_dealloc, Event_dealloc},
    {Py_tp_repr, Event_repr},       {Py_tp_methods, Event_methods},
    {Py_tp_members, Event_members}, {0, NULL},
};

static PyType_Spec Event_spec = {
    .name = "pycoronet.Event",
    .basicsize = sizeof(EventObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Event_slots,
};

PyTypeObject *
event_type_new(PyObject *module)
{
    return add_type(module, &Event_spec);
}
