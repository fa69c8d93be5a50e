// py_wait.h: waiting for descriptors that are not connections.

#ifndef CORONET_PY_WAIT_H
#define CORONET_PY_WAIT_H

#include "py_hub.h"

// Parks until [fd] is ready for one of [events] (EVENT_READ, EVENT_WRITE, EVENT_PRIORITY),
// at most [timeout_ns] (-1: no limit). What is ready, or -1 with an exception:
// TimeoutError, ClosedError (see notify_closing), BusyError, ValueError for a regular file.
int hub_wait_fd(HubObject *hub, int fd, unsigned events, int64_t timeout_ns);

// The module's functions.
PyObject *wait_fd(PyObject *module, PyObject *const *arguments, Py_ssize_t count,
                  PyObject *keyword_names);
PyObject *wait_readable(PyObject *module, PyObject *const *arguments, Py_ssize_t count,
                        PyObject *keyword_names);
PyObject *wait_writable(PyObject *module, PyObject *const *arguments, Py_ssize_t count,
                        PyObject *keyword_names);
PyObject *wait_notify_closing(PyObject *module, PyObject *file);

#endif
