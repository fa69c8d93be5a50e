// greenlet_bridge.h: all that layer 3 knows of greenlet.
//
// greenlet.h keeps its API pointer static in each file that includes it, so exactly one
// file does: greenlet_bridge.c.

#ifndef CORONET_GREENLET_BRIDGE_H
#define CORONET_GREENLET_BRIDGE_H

#include <Python.h>

// Imports greenlet's C API. 0, or -1 with an exception.
int greenlet_bridge_import(void);

// A new greenlet that will call [run] without arguments, below [parent].
PyObject *greenlet_new(PyObject *run, PyObject *parent);

// The running greenlet, a new reference; NULL with an exception while the interpreter
// is being finalised.
PyObject *greenlet_current(void);

// Its parent, a new reference; NULL without an exception for a thread's main greenlet.
PyObject *greenlet_parent(PyObject *greenlet);

// Has [greenlet] end by GreenletExit, as it would with its last reference, and control come
// back here. 0, or -1 with an exception: it is another thread's, or Python is ending.
int greenlet_end(PyObject *greenlet);

// Switches to [greenlet], which the caller holds until this returns. A new reference to what
// is switched back, or NULL with an exception that was thrown into the caller.
PyObject *greenlet_switch(PyObject *greenlet);

// Forgets attributes that user code has set on the greenlet.
void greenlet_clear_attributes(PyObject *greenlet);

// The GreenletExit exception. Borrowed.
PyObject *greenlet_exit_exception(void);

#endif
