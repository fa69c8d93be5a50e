// pycoronet.h: the C API of pycoronet: extensions that wait as a coroutine waits.
//
// Include it behind Python.h; pycoronet.get_include() names its folder, and nothing has to be
// linked. Each function finds pycoronet by itself; a module that calls pycoronet_import() when
// it is initialised fails there and not later. docs/c-api.md has an example.
//
// What holds for all of them:
//   - The caller holds the GIL, and no exception is set. -1 and NULL come with one.
//   - wait_fd() and park() let other tasks run. What those may have changed is to be looked at
//     anew, and no lock but the GIL may be held meanwhile.
//   - While a coroutine waits, its C stack is moved away and the place used by others. So what
//     another thread or task may touch meanwhile lies on the heap, NEVER in a local variable.
//   - A wait may raise what it does in Python: Cancelled, a timeout() that is over,
//     KeyboardInterrupt. Let go of what you have and return; to swallow it would not do.
//   - Where nobody may wait (in a hub callback, a layer, a step of asyncio, a hub that closes)
//     a wait raises RuntimeError at once.
//   - A thread that has no hub gets one and waits alone. In a forked child only the coroutine
//     that forked goes on; a waiter is as good for it as before.
//
// It compiles as C99 and C++11, also with Py_LIMITED_API.

#ifndef PYCORONET_H
#define PYCORONET_H

#include <Python.h>

#include <stddef.h>
#include <stdint.h>

// The number changes when something changes that is there. New functions are added to the end
// of the table and make it longer: an extension runs with its own version of this header and
// with newer ones of the same number.
#define PYCORONET_ABI_VERSION 1
#define PYCORONET_CAPSULE_NAME "pycoronet._coronet._C_API"

// What to wait for, or-ed together, and what comes back; the values are those of poll(2) on
// Linux, on every system.
#define PYCORONET_READ 0x01
#define PYCORONET_PRIORITY 0x02
#define PYCORONET_WRITE 0x04
#define PYCORONET_ERROR 0x08  // comes back only
#define PYCORONET_HANGUP 0x10 // comes back only

// Deadlines are points of the clock that pycoronet_now_ns() reads, in nanoseconds. One that has
// passed only looks whether there is something to wait for; this one never comes.
#define PYCORONET_NEVER INT64_MAX

struct pycoronet_api {
    uint32_t abi_version; // PYCORONET_ABI_VERSION of the pycoronet that is running
    uint32_t size;        // of its table, in bytes
    int64_t (*now_ns)(void);
    int (*deadline_after)(PyObject *timeout, int64_t *deadline_ns);
    int (*wait_fd)(int fd, int events, int64_t deadline_ns);
    int (*notify_closing)(int fd);
    PyObject *(*current_task)(void);
    PyObject *(*waiter_new)(const char *operation);
    int (*park)(PyObject *waiter, int64_t deadline_ns);
    int (*wake)(PyObject *waiter);
};

// Each file that includes this has a pointer of its own, filled when it is first needed.
static const struct pycoronet_api *pycoronet_api_table = NULL;

// Finds pycoronet's table. 0, or -1 with an ImportError that says what to install or rebuild.
// Further calls cost nothing.
static inline int
pycoronet_import(void)
{
    if (pycoronet_api_table != NULL) {
        return 0;
    }
    PyObject *module = PyImport_ImportModule("pycoronet._coronet");
    if (module == NULL) {
        return -1;
    }
    // Interned, for each name made afresh takes a place in Python's cache of attributes.
    PyObject *name = PyUnicode_InternFromString("_C_API");
    PyObject *capsule = name == NULL ? NULL : PyObject_GetAttr(module, name);
    Py_XDECREF(name);
    Py_DECREF(module);
    // The table is static, so it is there for as long as the process is.
    const struct pycoronet_api *table =
        capsule == NULL ? NULL
                        : (const struct pycoronet_api *)PyCapsule_GetPointer(
                              capsule, PYCORONET_CAPSULE_NAME);
    Py_XDECREF(capsule);
    if (table == NULL) {
        PyErr_SetString(PyExc_ImportError,
                        "the pycoronet that is installed has no C API: "
                        "install a newer pycoronet");
        return -1;
    }
    if (table->abi_version != PYCORONET_ABI_VERSION ||
        table->size < sizeof(struct pycoronet_api)) {
        PyErr_Format(PyExc_ImportError,
                     "this extension was built for version %d of pycoronet's C API "
                     "(%zu bytes), the pycoronet that is installed has version %u "
                     "(%u bytes): %s",
                     PYCORONET_ABI_VERSION, sizeof(struct pycoronet_api),
                     table->abi_version, table->size,
                     table->abi_version > PYCORONET_ABI_VERSION
                         ? "rebuild the extension"
                         : "install a newer pycoronet");
        return -1;
    }
    pycoronet_api_table = table;
    return 0;
}

// The time of this thread's hub: the monotonic clock, or in tests a virtual one. >= 0, or -1.
// Never switches.
static inline int64_t
pycoronet_now_ns(void)
{
    return pycoronet_import() < 0 ? -1 : pycoronet_api_table->now_ns();
}

// Makes a deadline of what Python callers give as timeout=: seconds from now on, None (or NULL)
// for PYCORONET_NEVER. 0, or -1 with TypeError, or with ValueError for a negative number or
// NaN. More than a year counts as a year. Never switches.
static inline int
pycoronet_deadline_after(PyObject *timeout, int64_t *deadline_ns)
{
    return pycoronet_import() < 0
               ? -1
               : pycoronet_api_table->deadline_after(timeout, deadline_ns);
}

// Waits until [fd] is ready for one of [events]: what it is ready for, or -1 as
// pycoronet.wait_fd() raises: TimeoutError when the deadline has passed, ClosedError after
// pycoronet_notify_closing(), BusyError if another task waits for the same, ValueError for a
// regular file, wrong events or a negative deadline, OSError for no descriptor. Switches.
static inline int
pycoronet_wait_fd(int fd, int events, int64_t deadline_ns)
{
    return pycoronet_import() < 0 ? -1
                                  : pycoronet_api_table->wait_fd(fd, events, deadline_ns);
}

// To be called before a descriptor is closed that tasks of this thread may wait for: they get
// ClosedError. 0 or -1. Never switches.
static inline int
pycoronet_notify_closing(int fd)
{
    return pycoronet_import() < 0 ? -1 : pycoronet_api_table->notify_closing(fd);
}

// The running pycoronet.Task, of which the main program has one too; None in a hub callback. A
// new reference, or NULL. For who keeps something per coroutine. Never switches.
static inline PyObject *
pycoronet_current_task(void)
{
    return pycoronet_import() < 0 ? NULL : pycoronet_api_table->current_task();
}

// Something to wait for until another task or thread says so. [operation] is what reports and
// dumps call the wait, such as "mylib.fetch"; a string literal, for it is not copied. A new
// reference to an object of no public type, or NULL. Never switches.
static inline PyObject *
pycoronet_waiter_new(const char *operation)
{
    return pycoronet_import() < 0 ? NULL : pycoronet_api_table->waiter_new(operation);
}

// Waits for pycoronet_wake(), and takes it: 0, or -1 with TimeoutError when the deadline has
// passed, TypeError for what is no waiter, ValueError for a negative deadline. A wake that came
// before is not lost: then it returns at once. One that comes together with an error goes to
// who parks next. Switches.
static inline int
pycoronet_park(PyObject *waiter, int64_t deadline_ns)
{
    return pycoronet_import() < 0 ? -1 : pycoronet_api_table->park(waiter, deadline_ns);
}

// Wakes who has parked longest, or else whoever parks next; it does not count how often. For
// any thread that holds the GIL: one that Python does not know takes it by
// PyGILState_Ensure(). 0, or -1 with a TypeError for what is no waiter. Never switches, and
// allocates nothing.
static inline int
pycoronet_wake(PyObject *waiter)
{
    return pycoronet_import() < 0 ? -1 : pycoronet_api_table->wake(waiter);
}

#endif
