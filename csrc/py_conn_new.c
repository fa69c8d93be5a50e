// py_conn_new.c: sk_conn(fd): which descriptors become connections, and from whom.
//
// A socket object gives its descriptor up; a bare number is taken at its word. What is refused
// is left as it was, except that it may have become non-blocking.
//
// Not here: what every connection begins with, wherever it comes from (conn_new in py_conn.c).

#include "py_conn.h"

#include "py_convert.h"
#include "py_wait.h"

// 1 if [file] is an instance of module.class, 0 if not, -1 with an exception.
static int
is_instance_of(PyObject *file, PyObject *module, const char *class_name)
{
    PyObject *type = module == NULL ? NULL : get_attribute(module, class_name);
    Py_XDECREF(module);
    int is_instance = type == NULL ? -1 : PyObject_IsInstance(file, type);
    Py_XDECREF(type);
    return is_instance;
}

// 1 if [file] is a socket object that encrypts; only if ssl is in use can it be.
static int
is_tls_socket(PyObject *file)
{
    PyObject *name = PyUnicode_FromString("ssl");
    PyObject *module = name == NULL ? NULL : PyImport_GetModule(name);
    Py_XDECREF(name);
    if (module == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    return is_instance_of(file, module, "SSLSocket");
}

// The descriptor of an int or a socket object; -1 with an exception.
static int
descriptor_of(PyObject *file, bool *is_socket_object)
{
    *is_socket_object = !PyLong_Check(file);
    if (*is_socket_object) {
        int is_socket = is_instance_of(file, PyImport_ImportModule("_socket"), "socket");
        int is_tls = is_socket > 0 ? is_tls_socket(file) : 0;
        if (is_socket < 0 || is_tls < 0) {
            return -1;
        }
        if (is_socket == 0) {
            PyErr_Format(PyExc_TypeError,
                         "sk_conn() takes a descriptor or a socket, not %s; of a file "
                         "object pass os.dup(file.fileno())",
                         Py_TYPE(file)->tp_name);
            return -1;
        }
        if (is_tls) {
            PyErr_SetString(
                PyExc_TypeError,
                "sk_conn() would lose the encryption of an SSLSocket; give it "
                "the plain socket");
            return -1;
        }
    }
    return PyObject_AsFileDescriptor(file);
}

static int
refuse_unpollable(int fd)
{
    PyErr_Format(PyExc_ValueError,
                 "descriptor %d is a regular file or a directory, which can never be "
                 "waited for: use it in a thread, with to_thread()",
                 fd);
    return -1;
}

// The number may have an owner already: a live one is an error of the caller, a stale
// one (its file was closed behind its back) learns of it. 0, or -1 with an exception.
static int
check_owner(HubObject *hub, int fd, const struct io_description *description)
{
    struct ready_target *target = reactor_owner(&hub->reactor, fd);
    SkConnObject *owner = conn_of_target(target);
    if (target == NULL ||
        (owner != NULL &&
         !hub_is_same_file(hub, fd, owner->device, owner->inode, description))) {
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "descriptor %d is in use already%s", fd,
                 owner == NULL ? ": a wait for it is going on" : " by another sk_conn");
    return -1;
}

PyObject *
conn_construct(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"fd", NULL};
    PyObject *file;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O:sk_conn", names, &file)) {
        return NULL;
    }
    HubObject *hub = hub_get(PyType_GetModuleState(type));
    bool is_socket_object;
    int fd = hub == NULL ? -1 : descriptor_of(file, &is_socket_object);
    if (fd < 0) {
        return NULL;
    }
    struct io_description description;
    int error = io_describe(fd, &description);
    if (error < 0) {
        return raise_errno(error);
    }
    if (!description.is_pollable) {
        refuse_unpollable(fd);
        return NULL;
    }
    if (check_owner(hub, fd, &description) < 0) {
        return NULL;
    }
    if (!description.was_nonblocking && (error = io_set_nonblocking(fd, true)) < 0) {
        return raise_errno(error);
    }
    if (is_socket_object) {
        // From here on the descriptor is ours alone.
        PyObject *detach = get_attribute(file, "detach");
        PyObject *detached = detach == NULL ? NULL : PyObject_CallNoArgs(detach);
        Py_XDECREF(detach);
        if (detached == NULL) {
            return NULL;
        }
        Py_DECREF(detached);
    }
    return (PyObject *)conn_new(hub, fd, &description);
}

const char conn_attach_doc[] =
    "_attach($self, fd, /)\n--\n\n"
    "Go on, in the calling thread, with the descriptor that detach() has given.\n\n"
    "The connection is open again, on the hub of this thread, with its settings, its counts,\n"
    "`server` and `traffic`. Nothing is asked about fd, for it is known. Raises RuntimeError\n"
    "for a connection that is open or was not left alone, or has a rate limit.";

PyObject *
conn_attach(SkConnObject *conn, PyObject *number)
{
    int fd = PyObject_AsFileDescriptor(number);
    HubObject *hub = fd < 0 ? NULL : hub_get(conn->hub->state);
    if (hub == NULL) {
        return NULL;
    }
    if (!conn->is_closed || conn->fd >= 0 || conn->drain != NULL ||
        conn->reader != NULL || conn->writer != NULL || conn->callbacks != NULL ||
        conn->transport != NULL || conn->valve != NULL) {
        PyErr_SetString(PyExc_RuntimeError,
                        "_attach() is for a connection that was detached");
        return NULL;
    }
    Py_SETREF(conn->hub, (HubObject *)Py_NewRef((PyObject *)hub));
    conn->fd = fd;
    int error = conn_claim_descriptor(conn);
    if (error < 0) {
        conn->fd = -1;
        return raise_errno(error);
    }
    conn->is_closed = false;
    conn->may_read = conn->may_write = true;
    conn->reads_to_the_end = !reactor_short_read_is_empty(&hub->reactor);
    list_append(&hub->connections, &conn->hub_link);
    Py_RETURN_NONE;
}
