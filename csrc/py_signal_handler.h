// py_signal_handler.h: signal_handler(): functions that the hub calls for a signal.

#ifndef CORONET_PY_SIGNAL_HANDLER_H
#define CORONET_PY_SIGNAL_HANDLER_H

#include "py_hub.h"

// The module's functions: the public one, and what Python calls when a signal has come.
extern const char signal_handler_doc[];
PyObject *signal_handler_add(PyObject *module, PyObject *const *arguments,
                             Py_ssize_t count);
PyObject *signal_handler_dispatch(PyObject *module, PyObject *arguments);

#endif
