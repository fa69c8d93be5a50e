// greenlet_bridge.c: the sole includer of greenlet.h; see greenlet_bridge.h.
//
// The API pointer of greenlet is the one process-wide variable of the extension. No
// function of the API may be called once the interpreter finalises; the only way in
// that can happen then is greenlet_current(), which every wait begins with.

#include "greenlet_bridge.h"

#include <greenlet/greenlet.h>

int
greenlet_bridge_import(void)
{
    // PyGreenlet_Import() returns nothing; the pointer tells.
    PyGreenlet_Import();
    if (_PyGreenlet_API == NULL) {
        if (!PyErr_Occurred()) { // not reached: greenlet has its C API
            PyErr_SetString(PyExc_ImportError, "greenlet's C API is missing");
        }
        return -1;
    }
    return 0;
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
        PyErr_SetString(PyExc_RuntimeError, // not reached: only while finalising
                        "the interpreter is finalising: nothing can wait any more");
    }
    return current;
}

PyObject *
greenlet_parent(PyObject *greenlet)
{
    return (PyObject *)PyGreenlet_GetParent((PyGreenlet *)greenlet);
}

int
greenlet_end(PyObject *greenlet)
{
    PyObject *me = greenlet_current();
    if (me == NULL) {
        return -1;
    }
    int error = PyGreenlet_SetParent((PyGreenlet *)greenlet, (PyGreenlet *)me);
    Py_DECREF(me);
    if (error < 0) {
        return -1; // not reached: the loop tells of other threads before
    }
    PyObject *result =
        PyGreenlet_Throw((PyGreenlet *)greenlet, PyExc_GreenletExit, NULL, NULL);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
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
