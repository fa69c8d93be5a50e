// py_ancillary.h: ancillary data, between Python's lists and the kernel's headers.
//
// The form is the socket module's: (level, type, data) for each item, as it comes with
// recvmsg(2) and goes with sendmsg(2).

#ifndef CORONET_PY_ANCILLARY_H
#define CORONET_PY_ANCILLARY_H

#include "py_state.h"

#include <sys/socket.h>

// What came with [message]: a list of (level, type, bytes). A new reference, NULL with an
// exception.
PyObject *ancillary_to_python(struct msghdr *message);

// Closes the descriptors that came with a message which cannot be handed over.
void ancillary_close_descriptors(struct msghdr *message);

// The kernel's form of [ancdata], an iterable, in PyMem memory: [*size] bytes at
// [*control], which are NULL and 0 before, and which the caller frees in any case. 0, or
// -1 with an exception (TypeError, ValueError, OverflowError).
int ancillary_from_python(PyObject *ancdata, char **control, size_t *size);

#endif
