// py_capi.h: the C API for other extensions, which include/pycoronet.h of the package tells.

#ifndef CORONET_PY_CAPI_H
#define CORONET_PY_CAPI_H

#include "py_state.h"

// Gives the module its capsule, and makes the type of what pycoronet_waiter_new() returns. 0, or
// -1 with an exception.
int capi_add(PyObject *module);

#endif
