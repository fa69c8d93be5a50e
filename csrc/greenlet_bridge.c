// greenlet_bridge.c: the sole includer of greenlet.h; see greenlet_bridge.h.
//
// The API pointer of greenlet is the one process-wide variable of the extension. No
// function of the API may be called once the interpreter finalises; the only way in
// that can happen then is greenlet_current(), which every wait begins with.

#include "greenlet_bridge.h"

#include <greenlet/greenlet.h>

typedef struct {
    PyGreenlet greenlet;
    struct worker worker;
} WorkerObject;

int
greenlet_bridge_import(void)
{
    // PyGreenlet_Import() returns nothing; the pointer tells.
    PyGreenlet_Import();
    if (_PyGreenlet_API == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ImportError, "greenlet's C API is missing");
        }
        return -1;
    }
    return 0;
}

PyDoc_STRVAR(worker_doc, "A pooled greenlet that runs one task after the other.");

PyObject *
greenlet_worker_type_new(PyObject *module)
{
    // Collection (its flag too), traversal and clearing are inherited: the fields hold
    // nothing by the time the greenlet has ended, and a suspended one is not collected.
    PyType_Slot slots[] = {
        {Py_tp_doc, (void *)worker_doc},
        {0, NULL},
    };
    PyType_Spec spec = {
        .name = "pycoronet._coronet.Worker",
        .basicsize = sizeof(WorkerObject),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots,
    };
    PyObject *bases = PyTuple_Pack(1, (PyObject *)&PyGreenlet_Type);
    if (bases == NULL) {
        return NULL;
    }
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, bases);
    Py_DECREF(bases);
    return type;
}

PyObject *
greenlet_worker_new(PyTypeObject *worker_type, PyObject *run, PyObject *parent)
{
    // The type's allocator clears the memory, so the fields start as zeros.
    return PyObject_CallFunctionObjArgs((PyObject *)worker_type, run, parent, NULL);
}

struct worker *
greenlet_worker(PyTypeObject *worker_type, PyObject *greenlet)
{
    return Py_TYPE(greenlet) == worker_type ? &((WorkerObject *)greenlet)->worker : NULL;
}

PyObject *
greenlet_of_worker(struct worker *worker)
{
    return (PyObject *)CONTAINER_OF(worker, WorkerObject, worker);
}

PyObject *
greenlet_new(PyObject *run, PyObject *parent)
{
    return (PyObject *)PyGreenlet_New(run, (PyGreenlet *)parent);
}

PyObject *
greenlet_current(void)
{
    PyObject *current = (PyObject *)PyGreenlet_GetCurrent();
    if (current == NULL && !PyErr_Occurred()) {
        PyErr_SetString(PyExc_RuntimeError,
                        "the interpreter is finalising: nothing can wait any more");
    }
    return current;
}

PyObject *
greenlet_parent(PyObject *greenlet)
{
    return (PyObject *)PyGreenlet_GetParent((PyGreenlet *)greenlet);
}

bool
greenlet_is_active(PyObject *greenlet)
{
    return PyGreenlet_ACTIVE((PyGreenlet *)greenlet);
}

PyObject *
greenlet_switch(PyObject *greenlet)
{
    return PyGreenlet_Switch((PyGreenlet *)greenlet, NULL, NULL);
}

void
greenlet_clear_attributes(PyObject *greenlet)
{
    Py_CLEAR(((PyGreenlet *)greenlet)->dict);
}

PyObject *
greenlet_exit_exception(void)
{
    return PyExc_GreenletExit;
}
