// py_traffic.c: the type Traffic, and what a connection knows of itself for statistics.
//
// Counting is in py_traffic.h, where the paths that move bytes find it.

#include "py_traffic.h"

#include <structmember.h>

#include "py_convert.h"

// --- Of a connection --------------------------------------------------------------------

static PyObject *
get_created(SkConnObject *conn, void *unused)
{
    (void)unused;
    return PyFloat_FromDouble((double)conn->created_ns / 1e9);
}

static PyObject *
get_traffic(SkConnObject *conn, void *unused)
{
    (void)unused;
    return Py_NewRef(conn->traffic == NULL ? Py_None : (PyObject *)conn->traffic);
}

static int
set_traffic(SkConnObject *conn, PyObject *traffic, void *unused)
{
    (void)unused;
    if (traffic == NULL || traffic == Py_None) {
        Py_CLEAR(conn->traffic);
        return 0;
    }
    if (!Py_IS_TYPE(traffic, conn->hub->state->traffic_type)) {
        PyErr_Format(PyExc_TypeError, "traffic must be a Traffic or None, not %.100s",
                     Py_TYPE(traffic)->tp_name);
        return -1;
    }
    Py_XSETREF(conn->traffic, (TrafficObject *)Py_NewRef(traffic));
    return 0;
}

PyGetSetDef traffic_attributes[] = {
    {"created", (getter)get_created, NULL,
     PyDoc_STR("When it was made or accepted: seconds, as time.time() gives them."),
     NULL},
    {"traffic", (getter)get_traffic, (setter)set_traffic,
     PyDoc_STR("The Traffic that counts its bytes too, or None. What a listener accepts\n"
               "begins with that of the listener."),
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

// --- The type ---------------------------------------------------------------------------

static PyObject *
Traffic_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, ":Traffic", names)) {
        return NULL;
    }
    return type->tp_alloc(type, 0);
}

static PyObject *
Traffic_repr(TrafficObject *traffic)
{
    return PyUnicode_FromFormat("<Traffic %llu read, %llu sent>",
                                (unsigned long long)traffic->moved_bytes[FLOW_IN],
                                (unsigned long long)traffic->moved_bytes[FLOW_OUT]);
}

static void
Traffic_dealloc(TrafficObject *traffic)
{
    PyTypeObject *type = Py_TYPE(traffic);
    type->tp_free(traffic);
    Py_DECREF(type);
}

static PyMemberDef Traffic_members[] = {
    {"bytes_read", T_ULONGLONG, offsetof(TrafficObject, moved_bytes[FLOW_IN]), READONLY,
     PyDoc_STR("What they have received, on the wire.")},
    {"bytes_sent", T_ULONGLONG, offsetof(TrafficObject, moved_bytes[FLOW_OUT]), READONLY,
     PyDoc_STR("What they have sent, on the wire.")},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(
    Traffic_doc,
    "Traffic()\n--\n\n"
    "Sums over all connections whose `traffic` it is: bytes_read and bytes_sent.\n\n"
    "They count from when it was set, and what a connection has moved stays counted\n"
    "when that is gone. Connections of several threads may share one.\n\n"
    "Source: cp_socket's bytes_read and bytes_sent.");

static PyType_Slot Traffic_slots[] = {
    {Py_tp_doc, (void *)Traffic_doc}, {Py_tp_new, Traffic_new},
    {Py_tp_dealloc, Traffic_dealloc}, {Py_tp_repr, Traffic_repr},
    {Py_tp_members, Traffic_members}, {0, NULL},
};

static PyType_Spec Traffic_spec = {
    .name = "pycoronet.Traffic",
    .basicsize = sizeof(TrafficObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Traffic_slots,
};

PyTypeObject *
traffic_type_new(PyObject *module)
{
    return add_type(module, &Traffic_spec);
}
