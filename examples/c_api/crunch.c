// crunch.c: an extension whose functions wait as coroutines wait, by pycoronet's C API.
//
// read() waits for a descriptor; count_primes() has a native thread do the work, without the
// GIL, and parks until that thread wakes it. While either waits, the other coroutines run.
//
// The rule to remember: while a coroutine waits, its C stack is moved away. So whatever the
// thread touches lies on the heap, in struct job, and whoever is the last to need it frees it:
// the thread if the caller gave up (a timeout, a cancel), or else the caller.

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include <pycoronet.h>

// --- Waiting for a descriptor -----------------------------------------------------------

// Waits until [fd] can be read, if [call_errno] says that it cannot be yet; 0 if reading is to
// be tried again, or -1 with an exception.
static int
wait_to_try_again(int fd, int call_errno, int64_t deadline_ns)
{
    if (call_errno == EINTR) {
        return PyErr_CheckSignals();
    }
    if (call_errno == EAGAIN || call_errno == EWOULDBLOCK) {
        return pycoronet_wait_fd(fd, PYCORONET_READ, deadline_ns) < 0 ? -1 : 0;
    }
    errno = call_errno;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

static PyObject *
crunch_read(PyObject *module, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"fd", "size", "timeout", NULL};
    (void)module;
    int fd;
    Py_ssize_t size, got;
    PyObject *timeout = NULL;
    int64_t deadline_ns;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "in|O:read", names, &fd, &size,
                                     &timeout) ||
        pycoronet_deadline_after(timeout, &deadline_ns) < 0) {
        return NULL;
    }
    PyObject *data = PyBytes_FromStringAndSize(NULL, size);
    if (data == NULL) {
        return NULL;
    }
    // The one deadline holds for all its waits together.
    while ((got = read(fd, PyBytes_AS_STRING(data), (size_t)size)) < 0) {
        if (wait_to_try_again(fd, errno, deadline_ns) < 0) {
            Py_DECREF(data);
            return NULL;
        }
    }
    _PyBytes_Resize(&data, got);
    return data;
}

// --- Waiting for a thread ---------------------------------------------------------------

struct job {
    PyObject *waiter;    // owned
    unsigned long limit; // primes below it are counted
    unsigned long count; // the result, once is_done
    bool is_done;        // this and the next are read and set with the GIL alone
    bool is_abandoned;   // nobody waits for it any more
};

// With the GIL.
static void
free_job(struct job *job)
{
    Py_DECREF(job->waiter);
    free(job);
}

static bool
is_prime(unsigned long number)
{
    for (unsigned long divisor = 2; divisor * divisor <= number; divisor++) {
        if (number % divisor == 0) {
            return false;
        }
    }
    return number > 1;
}

static void *
run_job(void *argument)
{
    struct job *job = argument;
    unsigned long count = 0;
    for (unsigned long number = 2; number < job->limit; number++) {
        count += is_prime(number);
    }
    PyGILState_STATE state = PyGILState_Ensure();
    job->count = count;
    job->is_done = true;
    if (job->is_abandoned) {
        free_job(job);
    }
    else if (pycoronet_wake(job->waiter) < 0) {
        PyErr_WriteUnraisable(NULL);
    }
    PyGILState_Release(state);
    return NULL;
}

// A job that its thread is at; NULL with an exception.
static struct job *
start_job(unsigned long limit)
{
    struct job *job = calloc(1, sizeof(*job));
    if (job == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    job->limit = limit;
    job->waiter = pycoronet_waiter_new("crunch.count_primes");
    if (job->waiter == NULL) {
        free(job);
        return NULL;
    }
    pthread_t thread;
    int error = pthread_create(&thread, NULL, run_job, job);
    if (error != 0) {
        free_job(job);
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        return NULL;
    }
    pthread_detach(thread);
    return job;
}

static PyObject *
crunch_count_primes(PyObject *module, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"limit", "timeout", NULL};
    (void)module;
    unsigned long limit;
    PyObject *timeout = NULL;
    int64_t deadline_ns;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "k|O:count_primes", names,
                                     &limit, &timeout) ||
        pycoronet_deadline_after(timeout, &deadline_ns) < 0) {
        return NULL;
    }
    struct job *job = start_job(limit);
    if (job == NULL) {
        return NULL;
    }
    if (pycoronet_park(job->waiter, deadline_ns) < 0 && !job->is_done) {
        job->is_abandoned = true; // the thread frees it
        return NULL;
    }
    // Done is done, even if an exception came with it.
    PyObject *count =
        PyErr_Occurred() != NULL ? NULL : PyLong_FromUnsignedLong(job->count);
    free_job(job);
    return count;
}

// --- The module -------------------------------------------------------------------------

PyDoc_STRVAR(
    read_doc,
    "read($module, /, fd, size, timeout=None)\n--\n\n"
    "At most size bytes from a non-blocking descriptor, b'' at its end. Switches.");

PyDoc_STRVAR(count_primes_doc,
             "count_primes($module, /, limit, timeout=None)\n--\n\n"
             "How many primes there are below limit, counted in a thread. Switches.");

static PyMethodDef methods[] = {
    {"read", (PyCFunction)(void (*)(void))crunch_read, METH_VARARGS | METH_KEYWORDS,
     read_doc},
    {"count_primes", (PyCFunction)(void (*)(void))crunch_count_primes,
     METH_VARARGS | METH_KEYWORDS, count_primes_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "crunch",
    .m_doc = "Functions in C that wait as coroutines wait.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC
PyInit_crunch(void)
{
    return pycoronet_import() < 0 ? NULL : PyModule_Create(&definition);
}
