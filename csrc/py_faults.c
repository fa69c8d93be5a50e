// py_faults.c: sets of faults as Python objects, for pycoronet.testing.
//
// That module checks what it is given and has the words; here are the numbers. A set that is
// at work owns a reference to itself, for io_faults.c points at it.

#include "py_hub.h"

#include <errno.h>

#include "io_faults.h"
#include "py_convert.h"

typedef struct {
    PyObject_HEAD
    struct io_faults faults;
    PyObject *plans[IO_OPERATION_COUNT]; // owned; bytes, NULL where chance decides
    bool is_started;
} FaultsObject;

static bool
is_tuple(PyObject *object)
{
    if (!PyTuple_Check(object)) {
        PyErr_Format(PyExc_TypeError, "a tuple is needed, not %.100s",
                     Py_TYPE(object)->tp_name);
    }
    return PyTuple_Check(object);
}

// One fault: (errno, limit, share). 0, or -1 with an exception.
static int
add_fault(struct io_fault_rule *rule, PyObject *object)
{
    int error;
    Py_ssize_t limit;
    double share;
    if (!is_tuple(object) || !PyArg_ParseTuple(object, "ind", &error, &limit, &share)) {
        return -1;
    }
    if (rule->fault_count == IO_FAULT_MAX_KINDS) {
        PyErr_Format(PyExc_ValueError, "at most %d kinds of faults for one operation",
                     IO_FAULT_MAX_KINDS);
        return -1;
    }
    rule->faults[rule->fault_count++] = (struct io_fault){
        .error = error,
        .limit = (size_t)limit,
        .share = (uint32_t)(share * UINT32_MAX),
    };
    return 0;
}

// One rule: (faults, plan), both tuples of an operation. 0, or -1 with an exception.
static int
set_rule(FaultsObject *self, int operation, PyObject *object)
{
    PyObject *faults, *plan;
    struct io_fault_rule *rule = &self->faults.rules[operation];
    if (!is_tuple(object) ||
        !PyArg_ParseTuple(object, "O!O", &PyTuple_Type, &faults, &plan)) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(faults); i++) {
        if (add_fault(rule, PyTuple_GET_ITEM(faults, i)) < 0) {
            return -1;
        }
    }
    if (PyBytes_Check(plan)) {
        self->plans[operation] = Py_NewRef(plan);
        rule->plan = (const unsigned char *)PyBytes_AS_STRING(plan);
        rule->plan_length = (size_t)PyBytes_GET_SIZE(plan);
    }
    return 0;
}

static int
select_descriptors(FaultsObject *self, PyObject *fds)
{
    if (fds == Py_None) {
        return 0;
    }
    self->faults.is_selective = true;
    PyObject *sequence = PySequence_Fast(fds, "descriptors must be an iterable");
    int error = sequence == NULL ? -1 : 0;
    for (Py_ssize_t i = 0; error == 0 && i < PySequence_Fast_GET_SIZE(sequence); i++) {
        int fd;
        error = convert_int(PySequence_Fast_GET_ITEM(sequence, i), "fd", 0, &fd);
        int status = error == 0 ? io_faults_select(&self->faults, fd) : 0;
        if (status < 0) {
            raise_errno(status);
            error = -1;
        }
    }
    Py_XDECREF(sequence);
    return error;
}

static PyObject *
Faults_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    PyObject *rules, *fds;
    unsigned long long seed;
    static char *names[] = {"", "", "", NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O!KO:_Faults", names,
                                     &PyTuple_Type, &rules, &seed, &fds)) {
        return NULL;
    }
    if (PyTuple_GET_SIZE(rules) != IO_OPERATION_COUNT) {
        return PyErr_Format(PyExc_ValueError, "_Faults() takes %d rules",
                            IO_OPERATION_COUNT);
    }
    FaultsObject *self = (FaultsObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    io_faults_init(&self->faults, seed);
    int error = select_descriptors(self, fds);
    for (int i = 0; i < IO_OPERATION_COUNT && error == 0; i++) {
        error = set_rule(self, i, PyTuple_GET_ITEM(rules, i));
    }
    if (error < 0) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static void
Faults_dealloc(FaultsObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    io_faults_fini(&self->faults);
    for (int i = 0; i < IO_OPERATION_COUNT; i++) {
        Py_XDECREF(self->plans[i]);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
Faults_start(FaultsObject *self, PyObject *unused)
{
    (void)unused;
    if (self->is_started || io_faults_start(&self->faults) < 0) {
        PyErr_SetString(PyExc_RuntimeError, self->is_started
                                                ? "these faults are injected already"
                                                : "faults are injected in this thread "
                                                  "already: one set at a time");
        return NULL;
    }
    self->is_started = true;
    Py_INCREF(self);
    Py_RETURN_NONE;
}

static PyObject *
Faults_stop(FaultsObject *self, PyObject *unused)
{
    (void)unused;
    HubObject *hub = hub_peek();
    if (hub != NULL && !hub->is_closed) {
        // Who waits after an EAGAIN of ours is told, though nobody will be any more.
        reactor_tell_again(&hub->reactor);
    }
    if (!self->is_started || io_faults_stop(&self->faults) < 0) {
        PyErr_SetString(PyExc_RuntimeError,
                        "these faults are not injected in this thread");
        return NULL;
    }
    self->is_started = false;
    Py_DECREF(self);
    Py_RETURN_NONE;
}

static PyObject *
Faults_counts(FaultsObject *self, PyObject *unused)
{
    (void)unused;
    PyObject *counts = PyTuple_New(IO_OPERATION_COUNT);
    for (int i = 0; counts != NULL && i < IO_OPERATION_COUNT; i++) {
        const struct io_fault_rule *rule = &self->faults.rules[i];
        PyObject *row = PyTuple_New((Py_ssize_t)rule->fault_count);
        for (size_t k = 0; row != NULL && k < rule->fault_count; k++) {
            PyObject *count = PyLong_FromUnsignedLongLong(rule->faults[k].count);
            if (count == NULL) {
                // not reached: small numbers take no memory
                Py_CLEAR(row);
                break;
            }
            PyTuple_SET_ITEM(row, (Py_ssize_t)k, count);
        }
        if (row == NULL) {
            Py_CLEAR(counts);
            break;
        }
        PyTuple_SET_ITEM(counts, i, row);
    }
    return counts;
}

static PyMethodDef Faults_methods[] = {
    {"start", (PyCFunction)Faults_start, METH_NOARGS,
     PyDoc_STR("start($self, /)\n--\n\nInject them, in this thread alone.")},
    {"stop", (PyCFunction)Faults_stop, METH_NOARGS,
     PyDoc_STR("stop($self, /)\n--\n\nInject them no more.")},
    {"counts", (PyCFunction)Faults_counts, METH_NOARGS,
     PyDoc_STR(
         "counts($self, /)\n--\n\nHow often each fault of each rule has happened.")},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(
    Faults_doc,
    "_Faults(rules, seed, fds, /)\n--\n\n"
    "Faults for system calls: what pycoronet.testing.faults() is made of.\n\n"
    "rules: for each operation of csrc/io_faults.h a tuple of faults (errno, limit, share)\n"
    "and a plan: bytes, each 0 or the place of a fault from 1 on, or None. fds: which\n"
    "descriptors are concerned, or None for all.");

static PyType_Slot Faults_slots[] = {
    {Py_tp_doc, (void *)Faults_doc},
    {Py_tp_new, Faults_new},
    {Py_tp_dealloc, Faults_dealloc},
    {Py_tp_methods, Faults_methods},
    {0, NULL},
};

static PyType_Spec Faults_spec = {
    .name = "pycoronet._Faults",
    .basicsize = sizeof(FaultsObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Faults_slots,
};

PyTypeObject *
faults_type_new(PyObject *module)
{
    return add_type(module, &Faults_spec);
}
