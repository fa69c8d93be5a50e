// py_wait.h: waiting for descriptors that are not connections.

#ifndef CORONET_PY_WAIT_H
#define CORONET_PY_WAIT_H

#include "nonblocking_io.h"
#include "py_hub.h"

// Parks until [fd] is ready for one of [events] (EVENT_READ, EVENT_WRITE, EVENT_PRIORITY),
// at most [timeout_ns] (-1: no limit). What is ready, or -1 with an exception:
// TimeoutError, ClosedError (see notify_closing), BusyError, ValueError for a regular file.
int hub_wait_fd(HubObject *hub, int fd, unsigned events, int64_t timeout_ns);

// Whether the number [fd], as described now, still means the file that was known by
// [device] and [inode] when its owner in the reactor claimed it. True if nothing can tell.
bool hub_is_same_file(HubObject *hub, int fd, uint64_t device, uint64_t inode,
                      const struct io_description *description);

// The module's functions.
PyObject *wait_fd(PyObject *module, PyObject *const *arguments, Py_ssize_t count,
                  PyObject *keyword_names);
PyObject *wait_readable(PyObject *module, PyObject *const *arguments, Py_ssize_t count,
                        PyObject *keyword_names);
PyObject *wait_writable(PyObject *module, PyObject *const *arguments, Py_ssize_t count,
                        PyObject *keyword_names);
PyObject *wait_notify_closing(PyObject *module, PyObject *file);

#endif
