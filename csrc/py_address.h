// py_address.h: socket addresses, between Python's forms and the kernel's.
//
// The forms are the socket module's: (host, port) for AF_INET, (host, port, flowinfo,
// scope_id) for AF_INET6 (the last two may be left out), a str or bytes path for AF_UNIX
// (a leading NUL byte means the abstract namespace). Hosts are numeric here; a name goes
// through the resolver, which may switch.

#ifndef CORONET_PY_ADDRESS_H
#define CORONET_PY_ADDRESS_H

#include "py_state.h"

#include <sys/socket.h>

// [address] as a Python object; None for length 0 and for families we do not know, bytes
// never. A new reference, NULL with an exception.
PyObject *address_to_python(const struct sockaddr *address, socklen_t length);

// Fills [*storage] and [*length] for a socket of [family] and [type]. A host that is not
// numeric is looked up by state->resolve(host, port, family, type), which returns an
// address of the numeric form and may switch. "" means any address. 0, or -1 with an
// exception (TypeError, ValueError, OverflowError for a port beyond 65535, OSError).
int address_from_python(struct module_state *state, PyObject *address, int family,
                        int type, struct sockaddr_storage *storage, socklen_t *length);

#endif
