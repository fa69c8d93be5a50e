// py_rate.h: rate limits: how fast connections may read and write, alone or as a group.
//
// A limit is a token bucket for each direction. The same record serves one connection and a
// group: what conn.set_rate_limit() sets is a group that has this member only and that nobody
// sees. So a connection has up to two memberships, and moves bytes as far as both allow. They
// hang in its valve, which asks before each system call and tells after it.
//
// Who may not move bytes stands in line in a fair_queue; one timer a group and direction
// begins the next round, and valve_release() lets those go on whose turn it is.
//
// Lifetime: a membership owns its group, and the group borrows its members. A connection
// leaves when its descriptor goes, so one that is closed and still sends is limited as before.

#ifndef CORONET_PY_RATE_H
#define CORONET_PY_RATE_H

#include "py_valve.h"

#include "fair_queue.h"

// RateLimit: numbers, and nothing that changes.
typedef struct {
    PyObject_HEAD
    uint64_t rate[2];  // bytes a second by enum flow_direction, 0 = no limit
    uint64_t burst[2]; // bytes, 0 = no limit
} RateLimitObject;

typedef struct RateGroupObject RateGroupObject;

// One direction of a group.
struct rate_flow {
    struct fair_queue queue; // its members are always counted, also without a limit
    struct timer timer;      // until the next round
    RateGroupObject *group;  // borrowed: whose flow it is
    uint64_t moved;          // bytes since the totals were reset
    bool is_limited;
    bool is_in_round; // members are being released
};

struct RateGroupObject {
    PyObject_HEAD
    PyObject *weak_references;
    HubObject *hub;            // owned
    RateLimitObject *limit;    // owned
    struct list_node members;  // memberships
    struct rate_flow flows[2]; // by enum flow_direction
};

struct rate_membership {
    RateGroupObject *group; // owned; NULL = none
    SkConnObject *conn;     // borrowed: whose membership it is
    struct list_node link;  // on group->members
    struct fair_member members[2];
};

// What hangs in the valve of a connection with limits.
struct rate_member {
    struct rate_membership own;    // of the limit that it has by itself
    struct rate_membership shared; // of the group that it was added to
};

// --- py_rate.c: for the valve ---------------------------------------------------------

// How many of [wanted] bytes (at least 1) may move now; 0: none, and it stands in line.
size_t rate_allowance(SkConnObject *conn, enum flow_direction direction, size_t wanted);

void rate_note_moved(SkConnObject *conn, enum flow_direction direction, size_t count);

// True while it stands in line.
bool rate_is_held(const SkConnObject *conn, enum flow_direction direction);

// Leaves everything, for a connection whose descriptor goes: nobody is released.
void rate_forget(SkConnObject *conn);

int rate_visit(const SkConnObject *conn, visitproc visit, void *arg);

// --- py_rate.c: groups ----------------------------------------------------------------

// A group without members. A new reference, NULL with an exception.
RateGroupObject *rate_group_new(HubObject *hub, RateLimitObject *limit,
                                uint64_t min_share);

void rate_group_change(RateGroupObject *group, RateLimitObject *limit);

// Arms the timers for what has changed by hand.
void rate_group_rearm(RateGroupObject *group);

// The tokens there are now. Only where there is a limit.
int64_t rate_group_tokens(RateGroupObject *group, enum flow_direction direction);

// Takes tokens by hand, or with negative numbers puts them back. 0, or -1 with ValueError and
// nothing done if a direction has no limit.
int rate_group_decrement(RateGroupObject *group, const int64_t counts[2]);

// 0, or -1 with an exception.
int rate_join(SkConnObject *conn, RateGroupObject *group);

// Goes on at once if nothing else holds it. The caller owns a reference to the connection.
void rate_leave(SkConnObject *conn, struct rate_membership *membership);

// The membership of [conn] in [group], NULL if it has none.
struct rate_membership *rate_membership_of(const SkConnObject *conn,
                                           const RateGroupObject *group);

extern PyMethodDef rate_methods[];
extern PyGetSetDef rate_attributes[];

// --- py_rate_type.c -------------------------------------------------------------------

// decrement(read=0, write=0), of [group]. None, or NULL with an exception.
PyObject *rate_decrement(RateGroupObject *group, const char *function,
                         PyObject *const *arguments, Py_ssize_t count,
                         PyObject *keyword_names);

// An int, or None where there is no limit.
PyObject *rate_remaining(RateGroupObject *group, enum flow_direction direction);

#endif
