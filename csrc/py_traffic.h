// py_traffic.h: what has gone over the wire: of one connection, and of many together.
//
// Wire bytes are counted: those that a system call has moved, below any layers. Each call
// that may move some is followed by conn_note_moved(), the one place where they are counted,
// for the connection, for its Traffic and for its rate limits.

#ifndef CORONET_PY_TRAFFIC_H
#define CORONET_PY_TRAFFIC_H

#include <errno.h>

#include "py_valve.h"

// Sums over all connections that have it, of whatever thread: the GIL keeps them whole.
struct TrafficObject {
    PyObject_HEAD
    uint64_t moved_bytes[2]; // by enum flow_direction
};

// The result of a system call that may have moved bytes, as it is.
static inline ssize_t
conn_note_moved(SkConnObject *conn, enum flow_direction direction, ssize_t count)
{
    if (count > 0) {
        conn->moved_bytes[direction] += (uint64_t)count;
        if (conn->traffic != NULL) {
            conn->traffic->moved_bytes[direction] += (uint64_t)count;
        }
        if (conn->valve != NULL) {
            valve_note_moved(conn, direction, (size_t)count);
        }
    }
    else if (count < 0 && count != -EAGAIN) {
        conn_note_break(conn, count);
    }
    return count;
}

extern PyGetSetDef traffic_attributes[];

#endif
