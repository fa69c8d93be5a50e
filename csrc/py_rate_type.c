// py_rate_type.c: the types RateLimit and RateGroup, as users see them.

#include "py_rate.h"

#include <assert.h>
#include <structmember.h>

#include "py_convert.h"

static const char *const direction_names[2] = {"read", "write"};

// --- RateLimit --------------------------------------------------------------------------

// An int from 1 to TOKEN_BUCKET_MAX. 0, or -1 with an exception.
static int
convert_amount(PyObject *number, const char *direction, const char *what,
               uint64_t *amount)
{
    PyObject *index = PyNumber_Index(number);
    if (index == NULL) {
        if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Format(PyExc_TypeError, "%s%s must be an int or None, not %s",
                         direction, what, Py_TYPE(number)->tp_name);
        }
        return -1;
    }
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(index, &overflow);
    Py_DECREF(index);
    if (overflow < 0 || (overflow == 0 && value < 1)) {
        PyErr_Format(PyExc_ValueError, "%s%s must be at least 1", direction, what);
        return -1;
    }
    if (overflow > 0 || (uint64_t)value > TOKEN_BUCKET_MAX) {
        PyErr_Format(PyExc_ValueError, "%s%s must be at most 2 ** 60", direction, what);
        return -1;
    }
    *amount = (uint64_t)value;
    return 0;
}

static int
convert_direction(RateLimitObject *limit, enum flow_direction direction, PyObject *rate,
                  PyObject *burst)
{
    const char *name = direction_names[direction];
    if (rate == Py_None) {
        if (burst != Py_None) {
            PyErr_Format(PyExc_ValueError, "%s_burst needs a %s_rate", name, name);
            return -1;
        }
        return 0;
    }
    if (convert_amount(rate, name, "_rate", &limit->rate[direction]) < 0) {
        return -1;
    }
    limit->burst[direction] = limit->rate[direction];
    return burst == Py_None
               ? 0
               : convert_amount(burst, name, "_burst", &limit->burst[direction]);
}

static PyObject *
RateLimit_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"read_rate", "read_burst", "write_rate", "write_burst", NULL};
    PyObject *values[] = {Py_None, Py_None, Py_None, Py_None};
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "|$OOOO:RateLimit", names,
                                     &values[0], &values[1], &values[2], &values[3])) {
        return NULL;
    }
    RateLimitObject *limit = (RateLimitObject *)type->tp_alloc(type, 0);
    if (limit == NULL) {
        return NULL;
    }
    if (convert_direction(limit, FLOW_IN, values[0], values[1]) < 0 ||
        convert_direction(limit, FLOW_OUT, values[2], values[3]) < 0) {
        Py_DECREF(limit);
        return NULL;
    }
    return (PyObject *)limit;
}

static void
RateLimit_dealloc(RateLimitObject *limit)
{
    PyTypeObject *type = Py_TYPE(limit);
    type->tp_free(limit);
    Py_DECREF(type);
}

// [offset]: where in the object the number lies.
static PyObject *
get_amount(RateLimitObject *limit, void *offset)
{
    uint64_t amount = *(const uint64_t *)(void *)((char *)limit + (size_t)offset);
    return amount == 0 ? Py_NewRef(Py_None) : PyLong_FromUnsignedLongLong(amount);
}

static PyObject *
RateLimit_repr(RateLimitObject *limit)
{
    PyObject *parts = PyList_New(0);
    PyObject *text = NULL;
    for (int i = 0; parts != NULL && i < 2; i++) {
        if (limit->rate[i] == 0) {
            continue;
        }
        PyObject *part =
            PyUnicode_FromFormat("%s_rate=%llu, %s_burst=%llu", direction_names[i],
                                 (unsigned long long)limit->rate[i], direction_names[i],
                                 (unsigned long long)limit->burst[i]);
        if (part == NULL || PyList_Append(parts, part) < 0) {
            Py_CLEAR(parts);
        }
        Py_XDECREF(part);
    }
    PyObject *comma = parts == NULL ? NULL : PyUnicode_FromString(", ");
    PyObject *joined = comma == NULL ? NULL : PyUnicode_Join(comma, parts);
    if (joined != NULL) {
        text = PyUnicode_FromFormat("RateLimit(%U)", joined);
    }
    Py_XDECREF(joined);
    Py_XDECREF(comma);
    Py_XDECREF(parts);
    return text;
}

static PyGetSetDef RateLimit_getset[] = {
    {"read_rate", (getter)get_amount, NULL, PyDoc_STR("Bytes a second; None: no limit."),
     (void *)offsetof(RateLimitObject, rate[FLOW_IN])},
    {"read_burst", (getter)get_amount, NULL, PyDoc_STR("Bytes; None: no limit."),
     (void *)offsetof(RateLimitObject, burst[FLOW_IN])},
    {"write_rate", (getter)get_amount, NULL, PyDoc_STR("Bytes a second; None: no limit."),
     (void *)offsetof(RateLimitObject, rate[FLOW_OUT])},
    {"write_burst", (getter)get_amount, NULL, PyDoc_STR("Bytes; None: no limit."),
     (void *)offsetof(RateLimitObject, burst[FLOW_OUT])},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(
    RateLimit_doc,
    "RateLimit(*, read_rate=None, read_burst=None, write_rate=None, write_burst=None)\n--\n\n"
    "How fast to read and write, for sk_conn.set_rate_limit() and RateGroup; immutable.\n\n"
    "read_rate, write_rate: bytes a second over any long time, from 1 to 2 ** 60; None: no\n"
    "limit in that direction.\n"
    "read_burst, write_burst: the most bytes that may go at once after a rest, at least 1;\n"
    "None: what comes in one second.\n\n"
    "While somebody waits, 20 milliseconds' worth may come on top of the burst, for timers\n"
    "are not exact: so the rate is reached with any burst. Raises ValueError for numbers out\n"
    "of range, and for a burst without its rate.\n\n"
    "Source: libevent's ev_token_bucket_cfg_new.");

static PyType_Slot RateLimit_slots[] = {
    {Py_tp_doc, (void *)RateLimit_doc}, {Py_tp_new, RateLimit_new},
    {Py_tp_dealloc, RateLimit_dealloc}, {Py_tp_repr, RateLimit_repr},
    {Py_tp_getset, RateLimit_getset},   {0, NULL},
};

static PyType_Spec RateLimit_spec = {
    .name = "pycoronet.RateLimit",
    .basicsize = sizeof(RateLimitObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = RateLimit_slots,
};

PyTypeObject *
rate_limit_type_new(PyObject *module)
{
    return add_type(module, &RateLimit_spec);
}

// --- RateGroup --------------------------------------------------------------------------

// What every method that may arm a timer begins with. 0, or -1 with an exception.
static int
check_usable(RateGroupObject *group)
{
    if (hub_check_thread(group->hub, "the group") < 0) {
        return -1;
    }
    if (group->hub->is_closed) {
        PyErr_SetString(PyExc_RuntimeError, "the group's hub is closed");
        return -1;
    }
    return 0;
}

static RateLimitObject *
check_limit(struct module_state *state, PyObject *limit)
{
    if (Py_IS_TYPE(limit, state->rate_limit_type)) {
        return (RateLimitObject *)limit;
    }
    PyErr_Format(PyExc_TypeError, "limit must be a RateLimit, not %s",
                 Py_TYPE(limit)->tp_name);
    return NULL;
}

static SkConnObject *
check_conn(RateGroupObject *group, PyObject *object)
{
    if (PyObject_TypeCheck(object, group->hub->state->conn_type)) {
        return (SkConnObject *)object;
    }
    PyErr_Format(PyExc_TypeError, "a group has members of type sk_conn, not %s",
                 Py_TYPE(object)->tp_name);
    return NULL;
}

static PyObject *
RateGroup_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"limit", "min_share", NULL};
    struct module_state *state = PyType_GetModuleState(type);
    PyObject *limit;
    PyObject *min_share = NULL;
    Py_ssize_t size;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O|$O:RateGroup", names, &limit,
                                     &min_share) ||
        check_limit(state, limit) == NULL ||
        convert_size(min_share, "min_share", 1, 64, &size) < 0) {
        return NULL;
    }
    HubObject *hub = hub_get(state);
    if (hub == NULL) {
        return NULL;
    }
    return (PyObject *)rate_group_new(hub, (RateLimitObject *)limit, (uint64_t)size);
}

PyDoc_STRVAR(
    add_doc,
    "add($self, conn, /)\n--\n\n"
    "Make conn a member; nothing if it is one already.\n\n"
    "It stays one until remove() or until its descriptor is closed; the group does not keep\n"
    "it alive. Raises ValueError if it is in another group or a listener, RuntimeError if it\n"
    "belongs to another thread's hub, ClosedError. Never switches.");

static PyObject *
RateGroup_add(RateGroupObject *group, PyObject *object)
{
    SkConnObject *conn = check_conn(group, object);
    if (conn == NULL || check_usable(group) < 0 || conn_check_usable(conn) < 0) {
        return NULL;
    }
    if (conn->is_listener) {
        PyErr_SetString(PyExc_ValueError, "a listener moves no bytes");
        return NULL;
    }
    if (rate_membership_of(conn, group) != NULL) {
        Py_RETURN_NONE;
    }
    if (conn->valve != NULL && conn->valve->rate != NULL &&
        conn->valve->rate->shared.group != NULL) {
        PyErr_SetString(PyExc_ValueError, "the connection is in another group");
        return NULL;
    }
    if (rate_join(conn, group) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    remove_doc,
    "remove($self, conn, /)\n--\n\n"
    "Let conn go, which goes on at once if it waits for its turn.\n\n"
    "Does nothing if it is no member. Raises TypeError for what is no connection. Never switches.");

static PyObject *
RateGroup_remove(RateGroupObject *group, PyObject *object)
{
    SkConnObject *conn = check_conn(group, object);
    if (conn == NULL || hub_check_thread(group->hub, "the group") < 0) {
        return NULL;
    }
    struct rate_membership *membership = rate_membership_of(conn, group);
    if (membership != NULL) {
        rate_leave(conn, membership);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    set_limit_doc,
    "set_limit($self, limit, /)\n--\n\n"
    "Set another RateLimit, from now on.\n\n"
    "limit: the tokens stay, up to its burst; a direction that had no limit begins with a full\n"
    "bucket. Raises TypeError for anything else. Never switches.");

static PyObject *
RateGroup_set_limit(RateGroupObject *group, PyObject *limit)
{
    if (check_limit(group->hub->state, limit) == NULL || check_usable(group) < 0) {
        return NULL;
    }
    rate_group_change(group, (RateLimitObject *)limit);
    Py_RETURN_NONE;
}

// Any int; one beyond 64 bits is clipped, as it would be by the bucket. 0, or -1 with an
// exception.
static int
convert_count(PyObject *number, const char *name, int64_t *count)
{
    Py_ssize_t size;
    if (convert_size(number, name, PY_SSIZE_T_MIN, 0, &size) < 0) {
        return -1;
    }
    *count = size;
    return 0;
}

PyObject *
rate_decrement(RateGroupObject *group, const char *function, PyObject *const *arguments,
               Py_ssize_t count, PyObject *keyword_names)
{
    static const char *const names[] = {"read", "write", NULL};
    const struct parameters parameters = {function, names, 0, 2};
    PyObject *values[2];
    int64_t counts[2];
    if (parse_arguments(&parameters, arguments, count, keyword_names, values) < 0 ||
        convert_count(values[0], "read", &counts[FLOW_IN]) < 0 ||
        convert_count(values[1], "write", &counts[FLOW_OUT]) < 0 ||
        rate_group_decrement(group, counts) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    decrement_doc,
    "decrement($self, /, read=0, write=0)\n--\n\n"
    "Take tokens by hand, for bytes that went another way.\n\n"
    "read, write: how many. There may be less than none\n"
    "afterwards, which has to be made up for first. Negative numbers put tokens back, up to\n"
    "the burst. The totals stay. Raises ValueError where there is no limit. Never switches.");

static PyObject *
RateGroup_decrement(RateGroupObject *group, PyObject *const *arguments, Py_ssize_t count,
                    PyObject *keyword_names)
{
    if (check_usable(group) < 0) {
        return NULL;
    }
    return rate_decrement(group, "decrement", arguments, count, keyword_names);
}

PyDoc_STRVAR(reset_totals_doc,
             "reset_totals($self, /)\n--\n\n"
             "Count bytes_read and bytes_written from 0 again. Never switches.");

static PyObject *
RateGroup_reset_totals(RateGroupObject *group, PyObject *unused)
{
    (void)unused;
    group->flows[FLOW_IN].moved = group->flows[FLOW_OUT].moved = 0;
    Py_RETURN_NONE;
}

static Py_ssize_t
RateGroup_length(RateGroupObject *group)
{
    return (Py_ssize_t)group->flows[FLOW_IN].queue.member_count;
}

static PyObject *
get_members(RateGroupObject *group, void *unused)
{
    (void)unused;
    PyObject *list = PyList_New(0);
    for (struct list_node *node = group->members.next;
         list != NULL && node != &group->members; node = node->next) {
        // Appending runs no code of others, so the node stays valid.
        if (PyList_Append(
                list,
                (PyObject *)CONTAINER_OF(node, struct rate_membership, link)->conn) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static PyObject *
get_limit(RateGroupObject *group, void *unused)
{
    (void)unused;
    return Py_NewRef((PyObject *)group->limit);
}

static PyObject *
get_min_share(RateGroupObject *group, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(group->flows[FLOW_IN].queue.min_share);
}

static PyObject *
get_bytes_read(RateGroupObject *group, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(group->flows[FLOW_IN].moved);
}

static PyObject *
get_bytes_written(RateGroupObject *group, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(group->flows[FLOW_OUT].moved);
}

PyObject *
rate_remaining(RateGroupObject *group, enum flow_direction direction)
{
    if (group == NULL || !group->flows[direction].is_limited) {
        Py_RETURN_NONE;
    }
    if (check_usable(group) < 0) {
        return NULL;
    }
    return PyLong_FromLongLong(rate_group_tokens(group, direction));
}

static PyObject *
get_read_remaining(RateGroupObject *group, void *unused)
{
    (void)unused;
    return rate_remaining(group, FLOW_IN);
}

static PyObject *
get_write_remaining(RateGroupObject *group, void *unused)
{
    (void)unused;
    return rate_remaining(group, FLOW_OUT);
}

static PyObject *
RateGroup_repr(RateGroupObject *group)
{
    return PyUnicode_FromFormat("<RateGroup of %zd, %R>", RateGroup_length(group),
                                group->limit);
}

static int
RateGroup_traverse(RateGroupObject *group, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(group));
    Py_VISIT(group->hub);
    Py_VISIT(group->limit);
    return 0;
}

// Every member holds its group, so there is none here and nobody waits.
static void
RateGroup_dealloc(RateGroupObject *group)
{
    PyTypeObject *type = Py_TYPE(group);
    PyObject_GC_UnTrack(group);
    if (group->weak_references != NULL) {
        PyObject_ClearWeakRefs((PyObject *)group);
    }
    for (int direction = FLOW_IN; direction <= FLOW_OUT; direction++) {
        assert(!timer_is_armed(&group->flows[direction].timer));
        timer_wheel_unlink(&group->hub->reactor.timers, &group->flows[direction].timer);
    }
    Py_CLEAR(group->limit);
    Py_CLEAR(group->hub);
    type->tp_free(group);
    Py_DECREF(type);
}

static PyMethodDef RateGroup_methods[] = {
    {"add", (PyCFunction)RateGroup_add, METH_O, add_doc},
    {"remove", (PyCFunction)RateGroup_remove, METH_O, remove_doc},
    {"set_limit", (PyCFunction)RateGroup_set_limit, METH_O, set_limit_doc},
    {"decrement", (PyCFunction)(void (*)(void))RateGroup_decrement,
     METH_FASTCALL | METH_KEYWORDS, decrement_doc},
    {"reset_totals", (PyCFunction)RateGroup_reset_totals, METH_NOARGS, reset_totals_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef RateGroup_getset[] = {
    {"limit", (getter)get_limit, NULL, PyDoc_STR("The RateLimit that all share."), NULL},
    {"min_share", (getter)get_min_share, NULL,
     PyDoc_STR("The least that a member may move when its turn comes, in bytes."), NULL},
    {"members", (getter)get_members, NULL, PyDoc_STR("A new list of the connections."),
     NULL},
    {"bytes_read", (getter)get_bytes_read, NULL,
     PyDoc_STR("What all members have read, on the wire."), NULL},
    {"bytes_written", (getter)get_bytes_written, NULL,
     PyDoc_STR("What all members have written, on the wire."), NULL},
    {"read_remaining", (getter)get_read_remaining, NULL,
     PyDoc_STR("How many bytes may be read now; less than 0 after too many were. None "
               "without a limit."),
     NULL},
    {"write_remaining", (getter)get_write_remaining, NULL,
     PyDoc_STR("How many bytes may be written now; less than 0 after too many were. None "
               "without a limit."),
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef RateGroup_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(RateGroupObject, weak_references),
     READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(
    RateGroup_doc,
    "RateGroup(limit, *, min_share=64)\n--\n\n"
    "Connections that share one RateLimit, each getting its part.\n\n"
    "min_share: the least number of bytes a member may move when its turn comes; so many\n"
    "members do not send crumbs, but wait longer.\n\n"
    "Members that want more than there is take turns, all of the same size, whatever the size\n"
    "of what they read and write; what one does not want is the others'. A member may have a\n"
    "limit of its own besides, and moves what both allow. A group belongs to the hub of the\n"
    "thread that makes it.\n\n"
    "Source: libevent's bufferevent_rate_limit_group_new, and what goes with it.");

static PyType_Slot RateGroup_slots[] = {
    {Py_tp_doc, (void *)RateGroup_doc}, {Py_tp_new, RateGroup_new},
    {Py_tp_dealloc, RateGroup_dealloc}, {Py_tp_traverse, RateGroup_traverse},
    {Py_tp_repr, RateGroup_repr},       {Py_tp_methods, RateGroup_methods},
    {Py_tp_getset, RateGroup_getset},   {Py_tp_members, RateGroup_members},
    {Py_sq_length, RateGroup_length},   {0, NULL},
};

static PyType_Spec RateGroup_spec = {
    .name = "pycoronet.RateGroup",
    .basicsize = sizeof(RateGroupObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = RateGroup_slots,
};

PyTypeObject *
rate_group_type_new(PyObject *module)
{
    return add_type(module, &RateGroup_spec);
}
