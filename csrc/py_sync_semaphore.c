// py_sync_semaphore.c: Semaphore and BoundedSemaphore.
//
// A permit that is released while somebody waits goes straight to who waits longest and is
// never counted as free. So while the value is not 0, nobody waits.

#include "py_sync.h"

#include <structmember.h>

#include "py_convert.h"

typedef struct {
    PyObject_HEAD
    struct module_state *state; // borrowed
    PyObject *weak_references;
    struct list_node waiters; // by link, the one waiting longest first
    Py_ssize_t value;         // free permits
    Py_ssize_t bound;         // no more may be free; -1 = no bound
} SemaphoreObject;

static bool
take_permit(SemaphoreObject *semaphore)
{
    bool is_free = semaphore->value > 0;
    semaphore->value -= is_free;
    return is_free;
}

// Gives [count] permits to those who wait, and what is left is free.
static void
release_permits(SemaphoreObject *semaphore, Py_ssize_t count)
{
    while (count > 0 && parking_wake_first(&semaphore->waiters, WOKEN_READY) != NULL) {
        count--;
    }
    semaphore->value += count;
}

PyDoc_STRVAR(
    acquire_doc,
    "acquire($self, /, blocking=True, timeout=None)\n--\n\n"
    "Take a permit, waiting for one if need be. True if the caller has got one.\n\n"
    "blocking: False returns False instead of waiting. timeout: seconds to wait at most, then\n"
    "False is returned; None is no limit.\n\n"
    "Who waits longest is served first. Raises ValueError for a timeout with blocking=False,\n"
    "RuntimeError in a hub callback that would have to wait. For any task and any thread. May\n"
    "switch.");

// [operation] and [subject], borrowed, name the wait in reports.
static PyObject *
take_or_wait(SemaphoreObject *semaphore, int64_t timeout_ns, const char *operation,
             PyObject *subject)
{
    if (take_permit(semaphore)) {
        Py_RETURN_TRUE;
    }
    if (timeout_ns == 0) {
        Py_RETURN_FALSE;
    }
    HubObject *hub;
    struct waiter *waiter = parking_prepare(semaphore->state, operation, &hub);
    if (waiter == NULL) {
        return NULL;
    }
    if (take_permit(semaphore)) {
        // not reached: another thread, since the first look
        hub_release_waiter(hub, waiter);
        Py_RETURN_TRUE;
    }
    int status =
        parking_wait(hub, waiter, &semaphore->waiters, timeout_ns, operation, subject);
    if (status == PARK_FORFEITED) {
        release_permits(semaphore, 1);
    }
    return status < 0 ? NULL : PyBool_FromLong(status == WOKEN_READY);
}

static PyObject *
Semaphore_acquire(SemaphoreObject *semaphore, PyObject *const *arguments,
                  Py_ssize_t count, PyObject *keyword_names)
{
    static const char *const names[] = {"blocking", "timeout", NULL};
    static const struct parameters parameters = {"acquire", names, 0, 2};
    PyObject *values[2];
    int64_t timeout_ns;
    if (parse_arguments(&parameters, arguments, count, keyword_names, values) < 0 ||
        sync_convert_blocking(values[0], values[1], &timeout_ns) < 0 ||
        (timeout_ns != 0 && sync_count_operation() < 0)) {
        return NULL;
    }
    return take_or_wait(semaphore, timeout_ns, "acquire", (PyObject *)semaphore);
}

PyDoc_STRVAR(acquire_as_doc,
             "_acquire_as($self, operation, subject, blocking, timeout, /)\n--\n\n"
             "acquire(), which reports call by that str and subject.");

static PyObject *
Semaphore_acquire_as(SemaphoreObject *semaphore, PyObject *const *arguments,
                     Py_ssize_t count)
{
    static const char *const names[] = {"operation", "subject", "blocking", "timeout",
                                        NULL};
    static const struct parameters parameters = {"_acquire_as", names, 4, 4};
    PyObject *values[4];
    int64_t timeout_ns;
    if (parse_arguments(&parameters, arguments, count, NULL, values) < 0 ||
        sync_convert_blocking(values[2], values[3], &timeout_ns) < 0 ||
        (timeout_ns != 0 && sync_count_operation() < 0)) {
        return NULL;
    }
    const char *operation = PyUnicode_AsUTF8(values[0]);
    return operation == NULL ? NULL
                             : take_or_wait(semaphore, timeout_ns, operation, values[1]);
}

PyDoc_STRVAR(
    release_doc,
    "release($self, /, n=1)\n--\n\n"
    "Give back, or add, n permits: to who waits longest, what is left is free.\n\n"
    "Raises ValueError for an n below 1, and of a BoundedSemaphore if more would be\n"
    "free than there were at first. For any thread. Never switches.");

static PyObject *
Semaphore_release(SemaphoreObject *semaphore, PyObject *const *arguments,
                  Py_ssize_t count, PyObject *keyword_names)
{
    static const char *const names[] = {"n", NULL};
    static const struct parameters parameters = {"release", names, 0, 1};
    PyObject *number;
    Py_ssize_t permits;
    if (parse_arguments(&parameters, arguments, count, keyword_names, &number) < 0 ||
        convert_size(number, "n", 1, 1, &permits) < 0) {
        return NULL;
    }
    if (semaphore->bound >= 0 && permits > semaphore->bound - semaphore->value) {
        PyErr_SetString(PyExc_ValueError, "semaphore released more often than acquired");
        return NULL;
    }
    if (permits > PY_SSIZE_T_MAX - semaphore->value) {
        PyErr_SetString(PyExc_OverflowError, "semaphore has too many permits");
        return NULL;
    }
    release_permits(semaphore, permits);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(enter_doc, "__enter__($self, /)\n--\n\nacquire(). May switch.");

static PyObject *
Semaphore_enter(SemaphoreObject *semaphore, PyObject *unused)
{
    (void)unused;
    return Semaphore_acquire(semaphore, NULL, 0, NULL);
}

PyDoc_STRVAR(exit_doc, "__exit__($self, type, value, traceback, /)\n--\n\nrelease().");

static PyObject *
Semaphore_exit(SemaphoreObject *semaphore, PyObject *const *arguments, Py_ssize_t count)
{
    (void)arguments;
    (void)count;
    return Semaphore_release(semaphore, NULL, 0, NULL);
}

// --- The types --------------------------------------------------------------------------

static PyObject *
Semaphore_repr(SemaphoreObject *semaphore)
{
    PyObject *name = sync_type_name((PyObject *)semaphore);
    if (name == NULL) {
        return NULL;
    }
    PyObject *text =
        semaphore->bound < 0
            ? PyUnicode_FromFormat("<%U at %p: value=%zd>", name, semaphore,
                                   semaphore->value)
            : PyUnicode_FromFormat("<%U at %p: value=%zd/%zd>", name, semaphore,
                                   semaphore->value, semaphore->bound);
    Py_DECREF(name);
    return text;
}

static PyObject *
Semaphore_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    (void)arguments; // a subclass may take others
    (void)keywords;
    SemaphoreObject *semaphore = (SemaphoreObject *)type->tp_alloc(type, 0);
    if (semaphore != NULL) {
        semaphore->state = module_state_of_type(type);
        semaphore->value = 1;
        semaphore->bound = -1;
        list_init(&semaphore->waiters);
    }
    return (PyObject *)semaphore;
}

static int
Semaphore_init(SemaphoreObject *semaphore, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"value", NULL};
    PyObject *value = NULL;
    return PyArg_ParseTupleAndKeywords(arguments, keywords, "|O:Semaphore", names,
                                       &value) &&
                   convert_size(value, "value", 0, 1, &semaphore->value) == 0
               ? 0
               : -1;
}

static int
BoundedSemaphore_init(SemaphoreObject *semaphore, PyObject *arguments, PyObject *keywords)
{
    if (Semaphore_init(semaphore, arguments, keywords) < 0) {
        return -1;
    }
    semaphore->bound = semaphore->value;
    return 0;
}

static void
Semaphore_dealloc(SemaphoreObject *semaphore)
{
    PyTypeObject *type = Py_TYPE(semaphore);
    if (semaphore->weak_references != NULL) {
        PyObject_ClearWeakRefs((PyObject *)semaphore);
    }
    parking_clear(&semaphore->waiters);
    type->tp_free(semaphore);
    Py_DECREF(type);
}

#define FASTCALL(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef Semaphore_methods[] = {
    {"acquire", FASTCALL(Semaphore_acquire), METH_FASTCALL | METH_KEYWORDS, acquire_doc},
    {"_acquire_as", FASTCALL(Semaphore_acquire_as), METH_FASTCALL, acquire_as_doc},
    {"release", FASTCALL(Semaphore_release), METH_FASTCALL | METH_KEYWORDS, release_doc},
    {"__enter__", (PyCFunction)Semaphore_enter, METH_NOARGS, enter_doc},
    {"__exit__", FASTCALL(Semaphore_exit), METH_FASTCALL, exit_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef Semaphore_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(SemaphoreObject, weak_references),
     READONLY, NULL},
    {"_value", T_PYSSIZET, offsetof(SemaphoreObject, value), READONLY,
     PyDoc_STR("How many permits are free.")},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(
    Semaphore_doc,
    "Semaphore(value=1)\n--\n\n"
    "So many permits, of threading's meaning: acquire() takes one, release() adds one.\n\n"
    "For the tasks of all hubs and all threads. First come, first served. Raises\n"
    "ValueError for a value below 0.\n\n"
    "Source: Python's threading.Semaphore.");

PyDoc_STRVAR(
    BoundedSemaphore_doc,
    "BoundedSemaphore(value=1)\n--\n\n"
    "A Semaphore whose release() raises ValueError rather than have more than value\n"
    "permits free.\n\n"
    "Source: Python's threading.BoundedSemaphore.");

PyTypeObject *
semaphore_type_new(PyObject *module)
{
    static PyType_Slot slots[] = {
        {Py_tp_doc, (void *)Semaphore_doc}, {Py_tp_new, Semaphore_new},
        {Py_tp_init, Semaphore_init},       {Py_tp_dealloc, Semaphore_dealloc},
        {Py_tp_repr, Semaphore_repr},       {Py_tp_methods, Semaphore_methods},
        {Py_tp_members, Semaphore_members}, {0, NULL},
    };
    static PyType_Spec spec = {
        .name = "pycoronet.Semaphore",
        .basicsize = sizeof(SemaphoreObject),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots,
    };
    return add_type(module, &spec);
}

PyTypeObject *
bounded_semaphore_type_new(PyObject *module)
{
    static PyType_Slot slots[] = {
        {Py_tp_doc, (void *)BoundedSemaphore_doc},
        {Py_tp_init, BoundedSemaphore_init},
        {Py_tp_dealloc, Semaphore_dealloc},
        {0, NULL},
    };
    static PyType_Spec spec = {
        .name = "pycoronet.BoundedSemaphore",
        .basicsize = sizeof(SemaphoreObject),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots,
    };
    return sync_add_derived_type(module, &spec, "Semaphore");
}
