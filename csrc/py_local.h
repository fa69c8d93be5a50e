// py_local.h: what tasks, callbacks and threads keep in objects of the type Local.

#ifndef CORONET_PY_LOCAL_H
#define CORONET_PY_LOCAL_H

#include <Python.h>

struct local_owner;

// Frees what the owner in [*place] keeps, and makes that NULL; nothing if it is NULL. May run
// code.
void local_owner_free(struct local_owner **place);

// Makes the type. 0, or -1 with an exception.
int local_type_add(PyObject *module);

#endif
