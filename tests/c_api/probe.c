// probe.c: each function of the C API as a Python function, and calls that go wrong.
//
// c_api_case.py builds it. What a function of C takes is given by position, unchecked.

#include <Python.h>

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>

#include <pycoronet.h>

static PyObject *
probe_import(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    pycoronet_api_table = NULL;
    return pycoronet_import() < 0 ? NULL : Py_NewRef(Py_None);
}

static struct pycoronet_api other_table;

// table(abi_version, size): a capsule like that of a pycoronet of another version.
static PyObject *
probe_table(PyObject *module, PyObject *arguments)
{
    (void)module;
    if (!PyArg_ParseTuple(arguments, "II", &other_table.abi_version, &other_table.size)) {
        return NULL;
    }
    return PyCapsule_New(&other_table, PYCORONET_CAPSULE_NAME, NULL);
}

static PyObject *
probe_table_size(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromSize_t(sizeof(struct pycoronet_api));
}

static PyObject *
probe_now_ns(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    int64_t now_ns = pycoronet_now_ns();
    return now_ns < 0 ? NULL : PyLong_FromLongLong(now_ns);
}

static PyObject *
probe_deadline_after(PyObject *module, PyObject *arguments)
{
    (void)module;
    PyObject *timeout = NULL;
    int64_t deadline_ns;
    if (!PyArg_ParseTuple(arguments, "|O", &timeout) ||
        pycoronet_deadline_after(timeout, &deadline_ns) < 0) {
        return NULL;
    }
    return PyLong_FromLongLong(deadline_ns);
}

static PyObject *
probe_wait_fd(PyObject *module, PyObject *arguments)
{
    (void)module;
    int fd, events;
    long long deadline_ns = PYCORONET_NEVER;
    if (!PyArg_ParseTuple(arguments, "ii|L", &fd, &events, &deadline_ns)) {
        return NULL;
    }
    int ready = pycoronet_wait_fd(fd, events, deadline_ns);
    return ready < 0 ? NULL : PyLong_FromLong(ready);
}

static PyObject *
probe_notify_closing(PyObject *module, PyObject *arguments)
{
    (void)module;
    int fd;
    if (!PyArg_ParseTuple(arguments, "i", &fd) || pycoronet_notify_closing(fd) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
probe_current_task(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return pycoronet_current_task();
}

static PyObject *
probe_waiter_new(PyObject *module, PyObject *arguments)
{
    (void)module;
    bool is_unnamed = PyTuple_GET_SIZE(arguments) > 0;
    return pycoronet_waiter_new(is_unnamed ? NULL : "probe.wait");
}

static PyObject *
probe_park(PyObject *module, PyObject *arguments)
{
    (void)module;
    PyObject *waiter = NULL;
    long long deadline_ns = PYCORONET_NEVER;
    if (!PyArg_ParseTuple(arguments, "|OL", &waiter, &deadline_ns) ||
        pycoronet_park(waiter, deadline_ns) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *only_reference;

// Parks on a waiter that nobody else knows.
static PyObject *
probe_park_alone(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    int64_t now_ns = pycoronet_now_ns();
    only_reference = pycoronet_waiter_new("probe.alone");
    if (now_ns < 0 || only_reference == NULL ||
        pycoronet_park(only_reference, now_ns + 1000000000) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
probe_let_go(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    Py_CLEAR(only_reference);
    Py_RETURN_NONE;
}

static PyObject *
probe_wake(PyObject *module, PyObject *arguments)
{
    (void)module;
    PyObject *waiter = NULL;
    if (!PyArg_ParseTuple(arguments, "|O", &waiter) || pycoronet_wake(waiter) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

// Parks while a signal is pending that Python has not seen yet.
static PyObject *
probe_raise_and_park(PyObject *module, PyObject *arguments)
{
    (void)module;
    int number;
    PyObject *waiter;
    if (!PyArg_ParseTuple(arguments, "iO", &number, &waiter) || raise(number) != 0 ||
        pycoronet_park(waiter, PYCORONET_NEVER) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

// --- Threads that Python does not know --------------------------------------------------

static void *
wake_and_end(void *waiter)
{
    poll(NULL, 0, 20); // so that mostly somebody waits before Python knows of this thread
    PyGILState_STATE state = PyGILState_Ensure();
    if (pycoronet_wake(waiter) < 0) {
        PyErr_WriteUnraisable(NULL);
    }
    Py_DECREF((PyObject *)waiter);
    PyGILState_Release(state);
    return NULL;
}

// Has a thread of its own wake the waiter.
static PyObject *
probe_wake_from_thread(PyObject *module, PyObject *waiter)
{
    (void)module;
    pthread_t thread;
    if (pthread_create(&thread, NULL, wake_and_end, Py_NewRef(waiter)) != 0) {
        Py_DECREF(waiter);
        PyErr_SetString(PyExc_RuntimeError, "no thread");
        return NULL;
    }
    pthread_detach(thread);
    Py_RETURN_NONE;
}

static void *
call_and_end(void *function)
{
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *result = PyObject_CallNoArgs(function);
    if (result == NULL) {
        PyErr_WriteUnraisable(function);
    }
    Py_XDECREF(result);
    PyGILState_Release(state);
    return NULL;
}

// Calls a function in a thread of its own, and waits until that has ended.
static PyObject *
probe_call_in_thread(PyObject *module, PyObject *function)
{
    (void)module;
    pthread_t thread;
    if (pthread_create(&thread, NULL, call_and_end, function) != 0) {
        PyErr_SetString(PyExc_RuntimeError, "no thread");
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS;
    pthread_join(thread, NULL);
    Py_END_ALLOW_THREADS;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"import_", probe_import, METH_NOARGS, NULL},
    {"table", probe_table, METH_VARARGS, NULL},
    {"table_size", probe_table_size, METH_NOARGS, NULL},
    {"now_ns", probe_now_ns, METH_NOARGS, NULL},
    {"deadline_after", probe_deadline_after, METH_VARARGS, NULL},
    {"wait_fd", probe_wait_fd, METH_VARARGS, NULL},
    {"notify_closing", probe_notify_closing, METH_VARARGS, NULL},
    {"current_task", probe_current_task, METH_NOARGS, NULL},
    {"waiter_new", probe_waiter_new, METH_VARARGS, NULL},
    {"park", probe_park, METH_VARARGS, NULL},
    {"park_alone", probe_park_alone, METH_NOARGS, NULL},
    {"let_go", probe_let_go, METH_NOARGS, NULL},
    {"wake", probe_wake, METH_VARARGS, NULL},
    {"raise_and_park", probe_raise_and_park, METH_VARARGS, NULL},
    {"wake_from_thread", probe_wake_from_thread, METH_O, NULL},
    {"call_in_thread", probe_call_in_thread, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "coronet_probe",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC
PyInit_coronet_probe(void)
{
    return PyModule_Create(&definition);
}
