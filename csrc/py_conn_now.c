// py_conn_now.c: what pycoronet.libsock and pycoronet.testing need of connections and nobody
// else does.
//
// The functions of libsock never wait and are told nothing by a task: they send what can
// be sent now, let go of a connection whatever it holds, and use a socket that is still being
// connected. Tests want failures that no system gives on demand. The methods here are theirs
// alone, so they have a leading underscore.

#include "py_conn.h"

#include "py_callbacks.h"
#include "py_convert.h"
#include "py_layer.h"

PyDoc_STRVAR(
    flush_now_doc,
    "_flush_now($self, /)\n--\n\n"
    "Send what the system takes now; return how many bytes that was. Also while what was\n"
    "written before close() is being sent. Never waits, never switches. Raises the OSError of\n"
    "output that could not be sent.");

static PyObject *
SkConn_flush_now(SkConnObject *conn, PyObject *unused)
{
    bool woke;
    (void)unused;
    if (conn->fd < 0 || conn->drain == NULL) {
        if (conn_check_usable(conn) < 0) {
            return NULL;
        }
    }
    else if (hub_check_thread(conn->hub, "the connection") < 0) {
        return NULL;
    }
    uint64_t before = conn_pending(conn);
    if (!conn->may_write && conn->fd >= 0) {
        // The event that would tell may not have been fetched yet.
        conn->may_write = io_ready_now(conn->fd, EVENT_WRITE) > 0;
    }
    conn_send_on(conn, &woke);
    if (conn->transport != NULL && transport_raise_failure(conn)) {
        return NULL;
    }
    if (conn->write_error < 0) {
        conn_raise_write_error(conn);
        return NULL;
    }
    uint64_t after = conn_pending(conn); // more, if a layer makes much of little
    return PyLong_FromUnsignedLongLong(after < before ? before - after : 0);
}

PyDoc_STRVAR(
    forget_doc,
    "_forget($self, /)\n--\n\n"
    "Give the descriptor up without closing it; what was not read or not sent is dropped.\n"
    "The connection counts as closed. Idempotent, never switches.");

static PyObject *
SkConn_forget(SkConnObject *conn, PyObject *unused)
{
    (void)unused;
    if (conn_check_thread(conn) < 0) {
        return NULL;
    }
    conn_detach(conn);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    await_room_doc,
    "_await_room($self, /)\n--\n\n"
    "Touch the socket only when an event has told that it is connected: some systems refuse\n"
    "what is sent before. Callbacks hear of it by on_ready(). Never switches.");

static PyObject *
SkConn_await_room(SkConnObject *conn, PyObject *unused)
{
    (void)unused;
    if (conn_check_usable(conn) < 0) {
        return NULL;
    }
    int error = conn_register(conn);
    if (error < 0) {
        return conn_raise(conn, error);
    }
    conn->may_read = conn->may_write = false;
    if (conn->callbacks != NULL) {
        conn->callbacks->is_behind = true;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    expect_reset_doc,
    "_expect_reset($self, /)\n--\n\n"
    "Tell the peer's end, when it comes, as a reset: ECONNRESET instead of the end of file or\n"
    "EPIPE. Never switches.");

static PyObject *
SkConn_expect_reset(SkConnObject *conn, PyObject *unused)
{
    (void)unused;
    if (conn_check_usable(conn) < 0) {
        return NULL;
    }
    conn->is_reset = true;
    Py_RETURN_NONE;
}

PyMethodDef conn_now_methods[] = {
    {"_flush_now", (PyCFunction)SkConn_flush_now, METH_NOARGS, flush_now_doc},
    {"_forget", (PyCFunction)SkConn_forget, METH_NOARGS, forget_doc},
    {"_await_room", (PyCFunction)SkConn_await_room, METH_NOARGS, await_room_doc},
    {"_expect_reset", (PyCFunction)SkConn_expect_reset, METH_NOARGS, expect_reset_doc},
    {NULL, NULL, 0, NULL},
};
