// py_conn_options.c: what users set once for a connection: watermarks, timeouts, linger.
//
// Nearly all connections have no record of their own, and follow conn_default_options.

#include "py_conn.h"

#include "py_callbacks.h"
#include "py_convert.h"

const struct conn_options conn_default_options = {
    .low_mark = {1, (uint64_t)16 * 1024},
    .high_mark = {(uint64_t)64 * 1024, (uint64_t)64 * 1024},
    .timeout_ns = {-1, -1},
    .linger_ns = INT64_C(30000000000),
};

// The connection's own options, made at the first call. NULL with an exception.
static struct conn_options *
own_options(SkConnObject *conn)
{
    if (conn_check_thread(conn) < 0) {
        return NULL;
    }
    if (conn->options == NULL) {
        struct conn_options *options = PyMem_Malloc(sizeof(*options));
        if (options == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        *options = conn_default_options;
        conn->options = options;
    }
    return conn->options;
}

// --- Watermarks -------------------------------------------------------------------------

PyDoc_STRVAR(
    set_watermarks_doc,
    "set_watermarks($self, /, *, read_low=None, read_high=None, write_low=None,\n"
    "               write_high=None)\n--\n\n"
    "Set how many bytes are held before something is told or stops.\n\n"
    "read_low: on_data() is called when so many are there to be taken; at the end of the\n"
    "stream on_eof() comes with fewer, and they can be taken then. read_high: so many are\n"
    "held at most; nothing more is received until some are taken. Both are for callbacks, of\n"
    "streams; what one receipt gives above a transport layer may go past read_high.\n"
    "write_low: on_ready() is called, and a writer goes on, when no more wait to be sent.\n"
    "write_high: a buffered write() that would make more wait pauses, and so does sendfile();\n"
    "while more wait, nothing is received for callbacks.\n\n"
    "At first 1, 65536, 16384 and 65536. What is not given stays, but a low mark comes down\n"
    "with its high one. Raises ValueError for negative numbers, a read_high of 0, and a low\n"
    "mark above the high one; then nothing is changed. Never switches.\n\n"
    "Source: libevent's bufferevent_setwatermark.");

// Puts what was given in place of what is. 0, or -1 with a ValueError.
static int
merge_marks(PyObject *const given[2], const char *const names[2], Py_ssize_t least_high,
            uint64_t *low_mark, uint64_t *high_mark)
{
    Py_ssize_t low, high;
    if (convert_size(given[0] == Py_None ? NULL : given[0], names[0], 0, -1, &low) < 0 ||
        convert_size(given[1] == Py_None ? NULL : given[1], names[1], least_high, -1,
                     &high) < 0) {
        return -1;
    }
    if (high >= 0) {
        *high_mark = (uint64_t)high;
    }
    if (low >= 0) {
        *low_mark = (uint64_t)low;
    }
    else if (*low_mark > *high_mark) {
        *low_mark = *high_mark;
    }
    if (*low_mark > *high_mark) {
        PyErr_Format(PyExc_ValueError, "the low mark %llu is above the high mark %llu",
                     (unsigned long long)*low_mark, (unsigned long long)*high_mark);
        return -1;
    }
    return 0;
}

static PyObject *
SkConn_set_watermarks(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count,
                      PyObject *keyword_names)
{
    static const char *const names[] = {"read_low", "read_high", "write_low",
                                        "write_high", NULL};
    static const struct parameters parameters = {"set_watermarks", names, 0, 0};
    PyObject *values[4] = {NULL};
    struct conn_options merged = *conn_options_of(conn);
    if (parse_arguments(&parameters, arguments, count, keyword_names, values) < 0 ||
        merge_marks(values, names, 1, &merged.low_mark[FLOW_IN],
                    &merged.high_mark[FLOW_IN]) < 0 ||
        merge_marks(values + 2, names + 2, 0, &merged.low_mark[FLOW_OUT],
                    &merged.high_mark[FLOW_OUT]) < 0) {
        return NULL;
    }
    struct conn_options *options = own_options(conn);
    if (options == NULL) {
        return NULL;
    }
    uint64_t old_read_low = options->low_mark[FLOW_IN];
    *options = merged;
    if (conn->callbacks != NULL) {
        callbacks_note_marks(conn, old_read_low);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    get_watermarks_doc,
    "get_watermarks($self, /)\n--\n\n"
    "Return the watermarks, a dict by the names of set_watermarks(). Never switches.\n\n"
    "Source: libevent's bufferevent_getwatermark.");

static PyObject *
SkConn_get_watermarks(SkConnObject *conn, PyObject *unused)
{
    const struct conn_options *options = conn_options_of(conn);
    (void)unused;
    return Py_BuildValue("{sKsKsKsK}", "read_low",
                         (unsigned long long)options->low_mark[FLOW_IN], "read_high",
                         (unsigned long long)options->high_mark[FLOW_IN], "write_low",
                         (unsigned long long)options->low_mark[FLOW_OUT], "write_high",
                         (unsigned long long)options->high_mark[FLOW_OUT]);
}

// --- Timeouts ---------------------------------------------------------------------------

PyDoc_STRVAR(
    set_timeo_doc,
    "set_timeo($self, seconds, /)\n--\n\n"
    "Bound each later wait of the connection's operations; None: wait for ever.\n\n"
    "seconds: a number, with fractions.\n\n"
    "0 means not to wait at all. An operation that has to wait longer raises TimeoutError.\n"
    "With callbacks on_timeout(conn, READ | WRITE) is called instead, when nothing has come\n"
    "or gone for so long. Raises ValueError for a negative number or NaN. Never switches.\n\n"
    "Source: coronet's conet_set_timeo.");

PyDoc_STRVAR(settimeout_doc,
             "settimeout($self, seconds, /)\n--\n\n"
             "The same as set_timeo(), by the socket module's name. Never switches.");

static int
set_timeo(SkConnObject *conn, PyObject *seconds, void *unused)
{
    (void)unused;
    if (conn_check_thread(conn) < 0 || convert_timeout(seconds, &conn->timeout_ns) < 0) {
        return -1;
    }
    if (conn->callbacks != NULL) {
        callbacks_set_timeout(conn);
    }
    return 0;
}

static PyObject *
SkConn_set_timeo(SkConnObject *conn, PyObject *seconds)
{
    return set_timeo(conn, seconds, NULL) < 0 ? NULL : Py_NewRef(Py_None);
}

PyDoc_STRVAR(
    gettimeout_doc,
    "gettimeout($self, /)\n--\n\n"
    "Return the seconds that each wait may take, None for ever. Never switches.");

static PyObject *
SkConn_gettimeout(SkConnObject *conn, PyObject *unused)
{
    (void)unused;
    return timeout_to_seconds(conn->timeout_ns);
}

PyDoc_STRVAR(
    set_timeouts_doc,
    "set_timeouts($self, /, read=None, write=None)\n--\n\n"
    "Set how long each direction may stand still, in seconds; None: for ever.\n\n"
    "With callbacks: when nothing has come for `read` seconds on_timeout(conn, READ) is\n"
    "called, when nothing has gone for `write` seconds on_timeout(conn, WRITE). The first\n"
    "counts only while something could come: not while reading is disabled, held by a rate\n"
    "limit, or stopped at a high mark, nor after the end; the second only while output waits\n"
    "and could go, or connect() is not done. What comes or goes begins the direction's time\n"
    "anew, and so does on_timeout() itself: the direction stays enabled, so that a peer that\n"
    "pauses twice is told of twice, and a protocol that ignores it loses nothing. It calls\n"
    "disable() or close() where it means to.\n\n"
    "For tasks: each wait to read or to write ends in TimeoutError after so long, or after\n"
    "settimeout()'s time if that is shorter. 0 lets no task wait, and means None to callbacks.\n"
    "Raises ValueError for negative numbers and NaN. Never switches.\n\n"
    "Source: libevent's bufferevent_set_timeouts.");

static PyObject *
SkConn_set_timeouts(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count,
                    PyObject *keyword_names)
{
    static const char *const names[] = {"read", "write", NULL};
    static const struct parameters parameters = {"set_timeouts", names, 0, 2};
    PyObject *values[2] = {NULL};
    int64_t read_ns, write_ns;
    if (parse_arguments(&parameters, arguments, count, keyword_names, values) < 0 ||
        convert_timeout(values[0], &read_ns) < 0 ||
        convert_timeout(values[1], &write_ns) < 0) {
        return NULL;
    }
    struct conn_options *options = own_options(conn);
    if (options == NULL) {
        return NULL;
    }
    options->timeout_ns[FLOW_IN] = read_ns;
    options->timeout_ns[FLOW_OUT] = write_ns;
    if (conn->callbacks != NULL && callbacks_set_idle_timeouts(conn->callbacks) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    get_timeouts_doc,
    "get_timeouts($self, /)\n--\n\n"
    "Return what set_timeouts() has set, a dict with \"read\" and \"write\". Never switches.");

static PyObject *
SkConn_get_timeouts(SkConnObject *conn, PyObject *unused)
{
    const struct conn_options *options = conn_options_of(conn);
    (void)unused;
    return Py_BuildValue("{sNsN}", "read",
                         timeout_to_seconds(options->timeout_ns[FLOW_IN]), "write",
                         timeout_to_seconds(options->timeout_ns[FLOW_OUT]));
}

// --- Attributes -------------------------------------------------------------------------

static PyObject *
get_timeo(SkConnObject *conn, void *unused)
{
    (void)unused;
    return timeout_to_seconds(conn->timeout_ns);
}

static PyObject *
get_linger(SkConnObject *conn, void *unused)
{
    (void)unused;
    return timeout_to_seconds(conn_options_of(conn)->linger_ns);
}

static int
set_linger(SkConnObject *conn, PyObject *seconds, void *unused)
{
    int64_t linger_ns;
    (void)unused;
    if (convert_timeout(seconds, &linger_ns) < 0) {
        return -1;
    }
    struct conn_options *options = own_options(conn);
    if (options == NULL) {
        return -1;
    }
    options->linger_ns = linger_ns;
    return 0;
}

PyGetSetDef conn_option_attributes[] = {
    {"timeo", (getter)get_timeo, (setter)set_timeo,
     PyDoc_STR("Seconds each wait may take; None: for ever."), NULL},
    {"linger", (getter)get_linger, (setter)set_linger,
     PyDoc_STR("Seconds that close() gives to what waits to be sent; None: no limit, 0: "
               "drop it."),
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyMethodDef conn_option_methods[] = {
    {"set_watermarks", (PyCFunction)(void (*)(void))SkConn_set_watermarks,
     METH_FASTCALL | METH_KEYWORDS, set_watermarks_doc},
    {"get_watermarks", (PyCFunction)SkConn_get_watermarks, METH_NOARGS,
     get_watermarks_doc},
    {"set_timeo", (PyCFunction)SkConn_set_timeo, METH_O, set_timeo_doc},
    {"settimeout", (PyCFunction)SkConn_set_timeo, METH_O, settimeout_doc},
    {"gettimeout", (PyCFunction)SkConn_gettimeout, METH_NOARGS, gettimeout_doc},
    {"set_timeouts", (PyCFunction)(void (*)(void))SkConn_set_timeouts,
     METH_FASTCALL | METH_KEYWORDS, set_timeouts_doc},
    {"get_timeouts", (PyCFunction)SkConn_get_timeouts, METH_NOARGS, get_timeouts_doc},
    {NULL, NULL, 0, NULL},
};
