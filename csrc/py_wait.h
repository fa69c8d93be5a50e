// py_wait.h: waiting for descriptors that are not connections.

#ifndef CORONET_PY_WAIT_H
#define CORONET_PY_WAIT_H

#include "nonblocking_io.h"
#include "py_hub.h"

struct foreign_watch;

// One who wants to hear of a descriptor that is no connection's: a greenlet that waits, or a
// call to be made.
struct foreign_wait {
    struct foreign_watch *watch; // borrowed; of the descriptor, lives as long as the wait
    struct waiter *waiter;       // NULL = none
    struct hub_call *call;       // borrowed; NULL = none
    unsigned events;             // what is asked for, 0 = nobody is here
    unsigned seen;               // what came
};

// Has [call] queued when [fd] is ready for one of [events], or closed by notify_closing(). The
// place, borrowed until foreign_leave(); NULL with an exception as of hub_wait_fd(), and
// ValueError if the descriptor is a connection's.
struct foreign_wait *foreign_enter(HubObject *hub, int fd, unsigned events,
                                   struct hub_call *call);

void foreign_leave(struct foreign_wait *place);

// Who waits at a descriptor that is no connection's: a Task or a handle, a tuple of the one
// that reads and the one that writes, or None. A new reference, NULL with an exception.
PyObject *foreign_owner(struct ready_target *target);

// EVENT_READ, EVENT_WRITE, EVENT_PRIORITY, or-ed together. 0, or -1 with a ValueError.
int check_events(unsigned long asked, unsigned *events);

// The same of an int. 0, or -1 with an exception.
int convert_events(PyObject *number, unsigned *events);

// Parks until [fd] is ready for one of [events] (EVENT_READ, EVENT_WRITE, EVENT_PRIORITY),
// at most [timeout_ns] (-1: no limit). What is ready, or -1 with an exception:
// TimeoutError, ClosedError (see notify_closing), BusyError, ValueError for a regular file.
int hub_wait_fd(HubObject *hub, int fd, unsigned events, int64_t timeout_ns);

// The hub's tasks that wait for [fd] get ClosedError, for it is about to be closed.
void hub_notify_closing(HubObject *hub, int fd);

// Stores the connection that [fd] belongs to, borrowed, or NULL, in [*conn]. 0, or -1 with an
// exception if there is no such descriptor.
int hub_find_conn(HubObject *hub, int fd, SkConnObject **conn);

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
