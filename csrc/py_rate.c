// py_rate.c: which connection may move bytes now, and when the others go on.
//
// Invariants:
//   1. While somebody stands in line, the flow's timer is armed or a round is going on.
//   2. valve_release() may run layers, which may do anything to a group and its members, so
//      a round takes one member after the other out of the queue and holds the group.

#include "py_rate.h"

#include "py_convert.h"

static struct rate_membership *
membership_of_member(struct fair_member *member, enum flow_direction direction)
{
    return CONTAINER_OF(member - direction, struct rate_membership, members);
}

// --- Rounds -----------------------------------------------------------------------------

static enum flow_direction
direction_of(const struct rate_flow *flow)
{
    return flow == &flow->group->flows[FLOW_OUT] ? FLOW_OUT : FLOW_IN;
}

static void
arm(struct rate_flow *flow, uint64_t now_ns)
{
    struct reactor *reactor = &flow->group->hub->reactor;
    if (flow->queue.waiting_count == 0) {
        timer_wheel_disarm(&reactor->timers, &flow->timer);
        return;
    }
    uint64_t delay_ns = fair_queue_delay_ns(&flow->queue, now_ns);
    if (delay_ns == 0) {
        // When the hub polls next; or a little later, for a timer that is armed for now
        // while timers run would come again in the same turn.
        reactor_arm_at(reactor, &flow->timer, flow->is_in_round ? now_ns + 1 : 0);
        return;
    }
    const uint64_t most_ns = TIMER_MAX_DELAY_MS * UINT64_C(1000000);
    reactor_arm_at(reactor, &flow->timer,
                   now_ns + (delay_ns < most_ns ? delay_ns : most_ns));
}

static void
release(struct rate_membership *membership, enum flow_direction direction)
{
    SkConnObject *conn = membership->conn;
    Py_INCREF(conn); // what it sends may be the last of it
    valve_release(conn, direction);
    Py_DECREF(conn);
}

static void
run_round(struct timer *timer)
{
    struct rate_flow *flow = CONTAINER_OF(timer, struct rate_flow, timer);
    enum flow_direction direction = direction_of(flow);
    RateGroupObject *group = flow->group;
    struct fair_member *member;
    Py_INCREF(group);
    flow->is_in_round = true;
    fair_queue_begin_round(&flow->queue, reactor_now_ns(&group->hub->reactor));
    while ((member = fair_queue_take_turn(&flow->queue)) != NULL) {
        release(membership_of_member(member, direction), direction);
    }
    if (!group->hub->is_closed) {
        arm(flow, reactor_now_ns(&group->hub->reactor));
    }
    flow->is_in_round = false;
    Py_DECREF(group);
}

// --- For the valve ----------------------------------------------------------------------

// What [membership] allows of [wanted] bytes, at least 1. 0: it stands in line.
static uint64_t
ask(struct rate_membership *membership, enum flow_direction direction, uint64_t wanted)
{
    RateGroupObject *group = membership->group;
    if (group == NULL || !group->flows[direction].is_limited) {
        return wanted;
    }
    struct rate_flow *flow = &group->flows[direction];
    uint64_t now_ns = reactor_now_ns(&group->hub->reactor);
    uint64_t allowed =
        fair_queue_ask(&flow->queue, &membership->members[direction], wanted, now_ns);
    if (allowed == 0 && !timer_is_armed(&flow->timer)) {
        arm(flow, now_ns);
    }
    return allowed;
}

size_t
rate_allowance(SkConnObject *conn, enum flow_direction direction, size_t wanted)
{
    struct rate_member *rate = conn->valve->rate;
    uint64_t allowed = ask(&rate->own, direction, conn->is_stream ? wanted : 1);
    if (allowed > 0) {
        allowed = ask(&rate->shared, direction, allowed);
    }
    // A packet goes whole; what is too much is paid back.
    return allowed > 0 && !conn->is_stream ? wanted : (size_t)allowed;
}

void
rate_note_moved(SkConnObject *conn, enum flow_direction direction, size_t count)
{
    struct rate_membership *const memberships[] = {&conn->valve->rate->own,
                                                   &conn->valve->rate->shared};
    for (size_t i = 0; i < Py_ARRAY_LENGTH(memberships); i++) {
        RateGroupObject *group = memberships[i]->group;
        if (group == NULL) {
            continue;
        }
        struct rate_flow *flow = &group->flows[direction];
        flow->moved += count;
        if (flow->is_limited) {
            fair_queue_note_moved(&flow->queue, &memberships[i]->members[direction],
                                  count);
        }
    }
}

bool
rate_is_held(const SkConnObject *conn, enum flow_direction direction)
{
    const struct rate_member *rate = conn->valve->rate;
    return list_is_linked(&rate->own.members[direction].link) ||
           list_is_linked(&rate->shared.members[direction].link);
}

int
rate_visit(const SkConnObject *conn, visitproc visit, void *arg)
{
    if (conn->valve != NULL && conn->valve->rate != NULL) {
        Py_VISIT(conn->valve->rate->own.group);
        Py_VISIT(conn->valve->rate->shared.group);
    }
    return 0;
}

// --- Membership -------------------------------------------------------------------------

// Takes the membership back. May be the end of the group.
static void
end_membership(struct rate_membership *membership)
{
    RateGroupObject *group = membership->group;
    membership->group = NULL;
    list_remove(&membership->link);
    for (int direction = FLOW_IN; direction <= FLOW_OUT; direction++) {
        struct rate_flow *flow = &group->flows[direction];
        fair_queue_leave(&flow->queue, &membership->members[direction]);
        if (flow->queue.waiting_count == 0) {
            timer_wheel_disarm(&group->hub->reactor.timers, &flow->timer);
        }
    }
    Py_DECREF(group);
}

static void
free_if_unused(SkConnObject *conn)
{
    struct valve *valve = conn->valve;
    if (valve->rate->own.group == NULL && valve->rate->shared.group == NULL) {
        PyMem_Free(valve->rate);
        valve->rate = NULL;
        valve_free_if_unused(conn);
    }
}

void
rate_forget(SkConnObject *conn)
{
    if (conn->valve == NULL || conn->valve->rate == NULL) {
        return;
    }
    if (conn->valve->rate->own.group != NULL) {
        end_membership(&conn->valve->rate->own);
    }
    if (conn->valve->rate->shared.group != NULL) {
        end_membership(&conn->valve->rate->shared);
    }
    free_if_unused(conn);
}

void
rate_leave(SkConnObject *conn, struct rate_membership *membership)
{
    bool was_held[2];
    for (int direction = FLOW_IN; direction <= FLOW_OUT; direction++) {
        was_held[direction] = list_is_linked(&membership->members[direction].link);
    }
    end_membership(membership);
    free_if_unused(conn);
    for (int direction = FLOW_IN; direction <= FLOW_OUT; direction++) {
        if (was_held[direction]) {
            valve_release(conn, (enum flow_direction)direction);
        }
    }
}

struct rate_membership *
rate_membership_of(const SkConnObject *conn, const RateGroupObject *group)
{
    struct rate_member *rate = conn->valve == NULL ? NULL : conn->valve->rate;
    return rate != NULL && rate->shared.group == group ? &rate->shared : NULL;
}

// The record in the connection's valve, made at the first call. NULL with MemoryError.
static struct rate_member *
rate_of(SkConnObject *conn)
{
    struct valve *valve = valve_of(conn);
    if (valve == NULL) {
        return NULL;
    }
    if (valve->rate == NULL) {
        valve->rate = PyMem_Calloc(1, sizeof(*valve->rate));
        if (valve->rate == NULL) {
            valve_free_if_unused(conn);
            PyErr_NoMemory();
            return NULL;
        }
        valve->rate->own.conn = valve->rate->shared.conn = conn;
    }
    return valve->rate;
}

static void
begin_membership(struct rate_membership *membership, RateGroupObject *group)
{
    membership->group = (RateGroupObject *)Py_NewRef((PyObject *)group);
    list_append(&group->members, &membership->link);
    for (int direction = FLOW_IN; direction <= FLOW_OUT; direction++) {
        fair_queue_join(&group->flows[direction].queue, &membership->members[direction]);
    }
}

int
rate_join(SkConnObject *conn, RateGroupObject *group)
{
    struct rate_member *rate = rate_of(conn);
    if (rate == NULL) {
        return -1;
    }
    begin_membership(&rate->shared, group);
    return 0;
}

// --- Groups -----------------------------------------------------------------------------

RateGroupObject *
rate_group_new(HubObject *hub, RateLimitObject *limit, uint64_t min_share)
{
    PyTypeObject *type = hub->state->rate_group_type;
    RateGroupObject *group = (RateGroupObject *)type->tp_alloc(type, 0);
    if (group == NULL) {
        return NULL;
    }
    group->hub = (HubObject *)Py_NewRef((PyObject *)hub);
    group->limit = (RateLimitObject *)Py_NewRef((PyObject *)limit);
    list_init(&group->members);
    for (int direction = FLOW_IN; direction <= FLOW_OUT; direction++) {
        struct rate_flow *flow = &group->flows[direction];
        uint64_t rate = limit->rate[direction];
        flow->group = group;
        flow->is_limited = rate > 0;
        timer_init(&flow->timer, run_round);
        fair_queue_init(&flow->queue, flow->is_limited ? rate : 1,
                        flow->is_limited ? limit->burst[direction] : 1, min_share,
                        reactor_now_ns(&hub->reactor));
    }
    return group;
}

static void
change_flow(struct rate_flow *flow, uint64_t rate, uint64_t burst, uint64_t now_ns)
{
    enum flow_direction direction = direction_of(flow);
    bool was_limited = flow->is_limited;
    flow->is_limited = rate > 0;
    if (flow->is_limited && was_limited) {
        fair_queue_tokens(&flow->queue, now_ns); // what has come by the old rate
        token_bucket_change(&flow->queue.bucket, rate, burst);
    }
    else if (flow->is_limited) {
        token_bucket_init(&flow->queue.bucket, rate, burst, now_ns);
    }
    struct fair_member *member;
    while (!flow->is_limited &&
           (member = fair_queue_take_waiting(&flow->queue)) != NULL) {
        release(membership_of_member(member, direction), direction);
    }
}

void
rate_group_rearm(RateGroupObject *group)
{
    uint64_t now_ns = reactor_now_ns(&group->hub->reactor);
    for (int direction = FLOW_IN; direction <= FLOW_OUT; direction++) {
        arm(&group->flows[direction], now_ns);
    }
}

void
rate_group_change(RateGroupObject *group, RateLimitObject *limit)
{
    uint64_t now_ns = reactor_now_ns(&group->hub->reactor);
    Py_INCREF(group);
    Py_INCREF(limit);
    Py_SETREF(group->limit, limit);
    for (int direction = FLOW_IN; direction <= FLOW_OUT; direction++) {
        change_flow(&group->flows[direction], limit->rate[direction],
                    limit->burst[direction], now_ns);
    }
    rate_group_rearm(group);
    Py_DECREF(group);
}

int64_t
rate_group_tokens(RateGroupObject *group, enum flow_direction direction)
{
    return fair_queue_tokens(&group->flows[direction].queue,
                             reactor_now_ns(&group->hub->reactor));
}

int
rate_group_decrement(RateGroupObject *group, const int64_t counts[2])
{
    for (int direction = FLOW_IN; direction <= FLOW_OUT; direction++) {
        if (counts[direction] != 0 && !group->flows[direction].is_limited) {
            PyErr_Format(PyExc_ValueError, "%s has no limit",
                         direction == FLOW_IN ? "reading" : "writing");
            return -1;
        }
    }
    for (int direction = FLOW_IN; direction <= FLOW_OUT; direction++) {
        struct token_bucket *bucket = &group->flows[direction].queue.bucket;
        if (counts[direction] != 0) {
            rate_group_tokens(group,
                              (enum flow_direction)direction); // first what has come
        }
        if (counts[direction] > 0) {
            token_bucket_take(bucket, (uint64_t)counts[direction]);
        }
        else {
            token_bucket_give(bucket, -(uint64_t)counts[direction]);
        }
    }
    rate_group_rearm(group);
    return 0;
}

// --- Methods of connections -------------------------------------------------------------

static RateGroupObject *
own_group(const SkConnObject *conn)
{
    struct rate_member *rate = conn->valve == NULL ? NULL : conn->valve->rate;
    return rate == NULL ? NULL : rate->own.group;
}

static int
begin_own_limit(SkConnObject *conn, RateLimitObject *limit)
{
    // Alone it takes what there is, so min_share only has to be something.
    RateGroupObject *group = rate_group_new(conn->hub, limit, 1);
    if (group == NULL) {
        return -1;
    }
    struct rate_member *rate = rate_of(conn);
    if (rate != NULL) {
        begin_membership(&rate->own, group);
    }
    Py_DECREF(group);
    return rate == NULL ? -1 : 0;
}

static int
check_limit(SkConnObject *conn, PyObject *limit)
{
    if (limit == Py_None || Py_IS_TYPE(limit, conn->hub->state->rate_limit_type)) {
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "limit must be a RateLimit or None, not %s",
                 Py_TYPE(limit)->tp_name);
    return -1;
}

PyDoc_STRVAR(
    set_rate_limit_doc,
    "set_rate_limit($self, limit, /)\n--\n\n"
    "Set how fast this connection may read and write; None: as fast as it goes.\n\n"
    "limit: a RateLimit, which any number of connections may be given, each with a bucket of\n"
    "its own. At first it is full, so a whole burst may go; another limit in the place of one\n"
    "keeps the tokens, up to the new burst. The bytes are those on the wire, below TLS and\n"
    "other layers. Who may not move any waits as for the peer: a task within its timeouts,\n"
    "output in the queue. A packet goes whole, and what is too much is paid back. Raises\n"
    "TypeError, ValueError for a listener, ClosedError. Never switches.\n\n"
    "Source: libevent's bufferevent_set_rate_limit.");

static PyObject *
SkConn_set_rate_limit(SkConnObject *conn, PyObject *limit)
{
    if (conn_check_usable(conn) < 0 || check_limit(conn, limit) < 0) {
        return NULL;
    }
    if (conn->is_listener) {
        PyErr_SetString(PyExc_ValueError, "a listener moves no bytes");
        return NULL;
    }
    RateGroupObject *group = own_group(conn);
    if (limit == Py_None) {
        if (group != NULL) {
            rate_leave(conn, &conn->valve->rate->own);
        }
    }
    else if (group != NULL) {
        rate_group_change(group, (RateLimitObject *)limit);
    }
    else if (begin_own_limit(conn, (RateLimitObject *)limit) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    decrement_rate_doc,
    "decrement_rate($self, /, read=0, write=0)\n--\n\n"
    "Take tokens off the connection's own limit, as if so many bytes had been moved.\n\n"
    "read, write: how many bytes. There may be less than none afterwards, which has to be made up for first. Negative\n"
    "numbers put tokens back, up to the burst. Raises ValueError if the connection has no\n"
    "limit of its own, or none in that direction; ClosedError. Never switches.\n\n"
    "Source: libevent's bufferevent_decrement_read_limit,\n"
    "bufferevent_decrement_write_limit.");

static PyObject *
SkConn_decrement_rate(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count,
                      PyObject *keyword_names)
{
    if (conn_check_usable(conn) < 0) {
        return NULL;
    }
    RateGroupObject *group = own_group(conn);
    if (group == NULL) {
        PyErr_SetString(PyExc_ValueError, "the connection has no limit of its own");
        return NULL;
    }
    return rate_decrement(group, "decrement_rate", arguments, count, keyword_names);
}

static PyObject *
get_rate_limit(SkConnObject *conn, void *unused)
{
    (void)unused;
    RateGroupObject *group = own_group(conn);
    return Py_NewRef(group == NULL ? Py_None : (PyObject *)group->limit);
}

static PyObject *
get_rate_group(SkConnObject *conn, void *unused)
{
    (void)unused;
    struct rate_member *rate = conn->valve == NULL ? NULL : conn->valve->rate;
    RateGroupObject *group = rate == NULL ? NULL : rate->shared.group;
    return Py_NewRef(group == NULL ? Py_None : (PyObject *)group);
}

static PyObject *
get_read_remaining(SkConnObject *conn, void *unused)
{
    (void)unused;
    return rate_remaining(own_group(conn), FLOW_IN);
}

static PyObject *
get_write_remaining(SkConnObject *conn, void *unused)
{
    (void)unused;
    return rate_remaining(own_group(conn), FLOW_OUT);
}

PyGetSetDef rate_attributes[] = {
    {"rate_limit", (getter)get_rate_limit, NULL,
     PyDoc_STR("The RateLimit that set_rate_limit() has set, or None."), NULL},
    {"rate_group", (getter)get_rate_group, NULL,
     PyDoc_STR("The RateGroup it is a member of, or None."), NULL},
    {"read_remaining", (getter)get_read_remaining, NULL,
     PyDoc_STR("How many bytes its own limit lets it read now; None without one."), NULL},
    {"write_remaining", (getter)get_write_remaining, NULL,
     PyDoc_STR("How many bytes its own limit lets it write now; None without one."),
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyMethodDef rate_methods[] = {
    {"set_rate_limit", (PyCFunction)SkConn_set_rate_limit, METH_O, set_rate_limit_doc},
    {"decrement_rate", (PyCFunction)(void (*)(void))SkConn_decrement_rate,
     METH_FASTCALL | METH_KEYWORDS, decrement_rate_doc},
    {NULL, NULL, 0, NULL},
};
