// py_valve.h: what holds the two directions of a connection: disable(), caps, rate limits,
// a listener's accept_limit.
//
// Nearly all connections have none, and pay one test of a pointer. Where there is one it is
// asked before each system call that moves bytes, at the very bottom: so it counts what goes
// over the wire, below any layers. A held direction behaves as if the kernel had said EAGAIN,
// and events for it are passed over; when it may flow again valve_release() stands in for
// them.
//
// Invariant: while a direction is held, may_read or may_write is false or its next attempt
// is refused by valve_allowance(), so nobody asks in a loop.

#ifndef CORONET_PY_VALVE_H
#define CORONET_PY_VALVE_H

#include "py_conn.h"

struct rate_member;

struct valve {
    bool is_shut[2];        // by disable()
    size_t single_limit[2]; // bytes that one system call may move; SIZE_MAX = no limit
    // A socket with callbacks that has no peer yet. Not registered before it connects, for
    // some engines report it as hung up at once; then until the connect is done.
    bool is_unconnected;
    bool is_connecting;
    int64_t accept_limit;     // connections a listener may still accept; -1 = no limit
    struct rate_member *rate; // owned; its rate limits (py_rate.h), NULL = none
};

// How many of [wanted] bytes the next system call may move: 0 = none, behave as for -EAGAIN.
// Only streams are cut; a packet may go whole or not at all.
size_t valve_allowance(SkConnObject *conn, enum flow_direction direction, size_t wanted);

// After a system call that has moved bytes.
void valve_note_moved(SkConnObject *conn, enum flow_direction direction, size_t count);

// The direction may flow again, if nothing else holds it: as if an event had told. Wakes the
// reader or writer, has callbacks called, sends what waits. The caller owns a reference.
void valve_release(SkConnObject *conn, enum flow_direction direction);

// After FLOW_IN was held: stops a listener's reports, which would come again and again while
// connections are queued.
void valve_quiet_listener(SkConnObject *conn);

// False if the direction is held, by whatever it may be.
bool valve_is_open(const SkConnObject *conn, enum flow_direction direction);

// The same at the price of one test.
static inline bool
conn_flows(const SkConnObject *conn, enum flow_direction direction)
{
    return conn->valve == NULL || valve_is_open(conn, direction);
}

// True if disable() holds it: then callbacks are not called for it either.
static inline bool
conn_is_disabled(const SkConnObject *conn, enum flow_direction direction)
{
    return conn->valve != NULL && conn->valve->is_shut[direction];
}

// True while connect() goes on for callbacks; with the second one also before it.
static inline bool
valve_is_connecting(const SkConnObject *conn)
{
    return conn->valve != NULL && conn->valve->is_connecting;
}

static inline bool
valve_has_no_peer(const SkConnObject *conn)
{
    return conn->valve != NULL &&
           (conn->valve->is_connecting || conn->valve->is_unconnected);
}

// Callbacks are about to be set: holds a stream socket that is not connected. 0, or -1 with
// MemoryError.
int valve_hold_unconnected(SkConnObject *conn);

// Lets go of what was held for want of a peer.
void valve_end_connect(SkConnObject *conn);

// The connection's valve, made at the first call. NULL with MemoryError.
struct valve *valve_of(SkConnObject *conn);

// Frees it if it holds nothing: the connection is then as if it never had one.
void valve_free_if_unused(SkConnObject *conn);

// Frees it; for a connection that is deallocated.
void valve_free(SkConnObject *conn);

// Reads a set of READ and WRITE from Python. 0, or -1 with an exception.
int valve_convert_directions(PyObject *number, bool chosen[2]);

extern PyMethodDef valve_methods[];
extern PyGetSetDef valve_attributes[];

#endif
