// py_once.h: once(): a function that is called when a descriptor is ready.

#ifndef CORONET_PY_ONCE_H
#define CORONET_PY_ONCE_H

#include "py_hub.h"

// The module's function.
extern const char once_doc[];
PyObject *once_call(PyObject *module, PyObject *const *arguments, Py_ssize_t count,
                    PyObject *keyword_names);

#endif
