// py_sync_lock.c: Lock and RLock.
//
// A lock that is released while somebody waits never becomes free: who waits longest owns it
// from then on, though it runs later. So nobody can overtake, and the owner is always known.
//
// An owner is a task, for its greenlets are one to everybody else; or a hub, for what one of
// its callbacks has taken; or a thread, for its main program, which is the same before the
// thread has a hub.

#include "py_sync.h"

#include <math.h>
#include <structmember.h>

#include "py_convert.h"
#include "py_task.h"

struct LockObject {
    PyObject_HEAD
    struct module_state *state; // borrowed
    PyObject *weak_references;
    struct list_node waiters; // by link, the one waiting longest first
    bool is_guard;            // it is around methods that never switch; they set it
    unsigned long depth;  // how often it was acquired and not released; 0 = it is free
    PyObject *owner;      // owned; a Task or a Hub, NULL = a main program, or nobody
    unsigned long thread; // the owner's
};

// --- Owners ---------------------------------------------------------------------------

// Who runs, as the owner of a lock: [*thread], and a Task, a Hub or NULL, borrowed.
static PyObject *
find_self(unsigned long *thread)
{
    *thread = PyThread_get_thread_ident();
    HubObject *hub = hub_peek();
    TaskObject *task;
    if (hub == NULL) {
        return NULL;
    }
    if (hub_running_task(hub, &task) < 0) {
        // The interpreter is being finalised, and no coroutine runs any more.
        PyErr_Clear();
        return NULL;
    }
    if (task == NULL) {
        return (PyObject *)hub;
    }
    return task->is_main ? NULL : (PyObject *)task;
}

static void
set_owner(LockObject *lock, PyObject *owner, unsigned long thread)
{
    lock->thread = thread;
    // May free a task, which may run code: the lock has to be in order by now.
    Py_XSETREF(lock->owner, Py_XNewRef(owner));
}

bool
lock_is_mine(LockObject *lock)
{
    unsigned long thread;
    PyObject *self = find_self(&thread);
    return lock->depth > 0 && lock->owner == self && lock->thread == thread;
}

// --- Acquiring and releasing --------------------------------------------------------------

void
lock_release(LockObject *lock)
{
    TaskObject *next = parking_wake_first(&lock->waiters, WOKEN_READY);
    if (next == NULL) {
        lock->depth = 0;
        set_owner(lock, NULL, 0);
    }
    else {
        lock->depth = 1;
        set_owner(lock, next->is_main ? NULL : (PyObject *)next, next->hub->thread_id);
    }
}

// Takes the lock if it is free.
static bool
try_lock(LockObject *lock)
{
    unsigned long thread;
    PyObject *self = find_self(&thread);
    if (lock->depth > 0) {
        return false;
    }
    lock->depth = 1;
    set_owner(lock, self, thread);
    return true;
}

int
lock_acquire(LockObject *lock, int64_t timeout_ns)
{
    if (try_lock(lock)) {
        return 1;
    }
    if (timeout_ns == 0) {
        return 0;
    }
    HubObject *hub;
    struct waiter *waiter = parking_prepare(lock->state, "acquire", &hub);
    if (waiter == NULL) {
        return -1;
    }
    if (try_lock(lock)) {
        // not reached: another thread, since the first look
        hub_release_waiter(hub, waiter);
        return 1;
    }
    int status = parking_wait(hub, waiter, &lock->waiters, timeout_ns, "acquire",
                              (PyObject *)lock);
    if (status == PARK_FORFEITED) {
        PyObject *exception = take_exception();
        lock_release(lock);
        restore_exception(exception);
    }
    // Who released it has made it ours.
    return status < 0 ? -1 : status == WOKEN_READY;
}

void
lock_reset(LockObject *lock)
{
    parking_clear(&lock->waiters);
    lock->depth = 0;
    set_owner(lock, NULL, 0);
}

// The arguments of acquire(), as threading's locks check them: there -1 is no limit, and a
// number that no system takes is an error. 0, or -1 with an exception.
static int
convert_arguments(PyObject *const *arguments, Py_ssize_t count, PyObject *keyword_names,
                  int64_t *timeout_ns)
{
    static const char *const names[] = {"blocking", "timeout", NULL};
    static const struct parameters parameters = {"acquire", names, 0, 2};
    PyObject *values[2];
    int is_blocking = 1;
    *timeout_ns = -1;
    if (count == 0 && keyword_names == NULL) {
        return 0;
    }
    if (parse_arguments(&parameters, arguments, count, keyword_names, values) < 0 ||
        convert_flag(values[0], &is_blocking) < 0) {
        return -1;
    }
    double seconds = values[1] == NULL ? -1 : PyFloat_AsDouble(values[1]);
    if (seconds == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (!is_blocking && seconds != -1) {
        PyErr_SetString(PyExc_ValueError,
                        "acquire() that does not block takes no timeout");
        return -1;
    }
    if (seconds > floor((double)PY_TIMEOUT_MAX / 1e6)) {
        PyErr_SetString(PyExc_OverflowError, "timeout is longer than TIMEOUT_MAX");
        return -1;
    }
    if (!is_blocking) {
        *timeout_ns = 0;
    }
    else if (seconds != -1) {
        return convert_timeout(values[1], timeout_ns);
    }
    return 0;
}

PyDoc_STRVAR(
    Lock_acquire_doc,
    "acquire($self, /, blocking=True, timeout=-1)\n--\n\n"
    "Take the lock, waiting for it if need be. True if the caller has it.\n\n"
    "blocking: False returns False instead of waiting. timeout: seconds to wait at most, then\n"
    "False is returned; -1 is no limit.\n\n"
    "Who waits longest is served first. Raises ValueError for a negative timeout, or one with\n"
    "blocking=False, OverflowError beyond threading.TIMEOUT_MAX, RuntimeError in a hub\n"
    "callback that would have to wait. For any task and any thread. May switch.");

static PyObject *
Lock_acquire(LockObject *lock, PyObject *const *arguments, Py_ssize_t count,
             PyObject *keyword_names)
{
    int64_t timeout_ns;
    if (convert_arguments(arguments, count, keyword_names, &timeout_ns) < 0 ||
        (timeout_ns != 0 && !lock->is_guard && sync_count_operation() < 0)) {
        return NULL;
    }
    int status = lock_acquire(lock, timeout_ns);
    return status < 0 ? NULL : PyBool_FromLong(status);
}

PyDoc_STRVAR(
    Lock_release_doc,
    "release($self, /)\n--\n\n"
    "Give the lock to who waits longest, or free it.\n\n"
    "Any task or thread may release it, not only who acquired it. Raises RuntimeError if it is\n"
    "not locked. Never switches.");

static PyObject *
Lock_release(LockObject *lock, PyObject *unused)
{
    (void)unused;
    if (lock->depth == 0) {
        PyErr_SetString(PyExc_RuntimeError, "release() of a lock that is not locked");
        return NULL;
    }
    lock_release(lock);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(enter_doc, "__enter__($self, /)\n--\n\nacquire(). May switch.");

static PyObject *
Lock_enter(LockObject *lock, PyObject *unused)
{
    (void)unused;
    return Lock_acquire(lock, NULL, 0, NULL);
}

PyDoc_STRVAR(exit_doc, "__exit__($self, type, value, traceback, /)\n--\n\nrelease().");

static PyObject *
Lock_exit(LockObject *lock, PyObject *const *arguments, Py_ssize_t count)
{
    (void)arguments;
    (void)count;
    return Lock_release(lock, NULL);
}

PyDoc_STRVAR(locked_doc,
             "locked($self, /)\n--\n\nTrue while somebody has it. Never switches.");

static PyObject *
Lock_locked(LockObject *lock, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(lock->depth > 0);
}

PyDoc_STRVAR(reinit_doc,
             "_at_fork_reinit($self, /)\n--\n\n"
             "Free the lock in a forked child, whoever held it in the parent.");

static PyObject *
Lock_at_fork_reinit(LockObject *lock, PyObject *unused)
{
    (void)unused;
    lock_reset(lock);
    Py_RETURN_NONE;
}

// --- Recursive locks --------------------------------------------------------------------

PyDoc_STRVAR(
    RLock_acquire_doc,
    "acquire($self, /, blocking=True, timeout=-1)\n--\n\n"
    "Take the lock, once more if the caller has it already. True if the caller has it.\n\n"
    "It is free again after as many calls of release(). Otherwise as Lock.acquire(). May\n"
    "switch.");

static PyObject *
RLock_acquire(LockObject *lock, PyObject *const *arguments, Py_ssize_t count,
              PyObject *keyword_names)
{
    if (!lock_is_mine(lock)) {
        return Lock_acquire(lock, arguments, count, keyword_names);
    }
    int64_t timeout_ns;
    if (convert_arguments(arguments, count, keyword_names, &timeout_ns) < 0) {
        return NULL;
    }
    lock->depth++;
    Py_RETURN_TRUE;
}

// 0 if the caller owns the lock, else -1 with a RuntimeError.
static int
check_mine(LockObject *lock)
{
    if (lock_is_mine(lock)) {
        return 0;
    }
    PyErr_SetString(PyExc_RuntimeError,
                    lock->depth == 0 ? "release() of a lock that is not locked"
                                     : "release() of a lock that somebody else has");
    return -1;
}

PyDoc_STRVAR(
    RLock_release_doc,
    "release($self, /)\n--\n\n"
    "Undo one acquire(); the last one gives the lock to who waits longest, or frees it.\n\n"
    "Raises RuntimeError if the caller does not have it. Never switches.");

static PyObject *
RLock_release(LockObject *lock, PyObject *unused)
{
    (void)unused;
    if (check_mine(lock) < 0) {
        return NULL;
    }
    if (lock->depth > 1) {
        lock->depth--;
    }
    else {
        lock_release(lock);
    }
    Py_RETURN_NONE;
}

static PyObject *
RLock_enter(LockObject *lock, PyObject *unused)
{
    (void)unused;
    return RLock_acquire(lock, NULL, 0, NULL);
}

static PyObject *
RLock_exit(LockObject *lock, PyObject *const *arguments, Py_ssize_t count)
{
    (void)arguments;
    (void)count;
    return RLock_release(lock, NULL);
}

// What Condition needs, by the names that threading's Condition knows them by.

PyDoc_STRVAR(release_save_doc,
             "_release_save($self, /)\n--\n\n"
             "Release it as often as it was acquired; what _acquire_restore() needs.");

static PyObject *
RLock_release_save(LockObject *lock, PyObject *unused)
{
    (void)unused;
    if (check_mine(lock) < 0) {
        return NULL;
    }
    PyObject *depth = PyLong_FromUnsignedLong(lock->depth);
    if (depth != NULL) {
        lock_release(lock);
    }
    return depth;
}

PyDoc_STRVAR(acquire_restore_doc, "_acquire_restore($self, state, /)\n--\n\n"
                                  "Acquire it as often as before _release_save().");

static PyObject *
RLock_acquire_restore(LockObject *lock, PyObject *state)
{
    unsigned long depth = PyLong_AsUnsignedLong(state);
    if ((depth == (unsigned long)-1 && PyErr_Occurred()) || lock_acquire(lock, -1) < 0) {
        return NULL;
    }
    lock->depth = depth;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(is_owned_doc, "_is_owned($self, /)\n--\n\nTrue if the caller has it.");

static PyObject *
RLock_is_owned(LockObject *lock, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(lock_is_mine(lock));
}

PyDoc_STRVAR(recursion_count_doc, "_recursion_count($self, /)\n--\n\n"
                                  "How often the caller has acquired it.");

static PyObject *
RLock_recursion_count(LockObject *lock, PyObject *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLong(lock_is_mine(lock) ? lock->depth : 0);
}

// --- The types --------------------------------------------------------------------------

static PyObject *
Lock_get_owner(LockObject *lock, void *unused)
{
    (void)unused;
    if (lock->depth == 0) {
        Py_RETURN_NONE;
    }
    return lock->owner != NULL ? Py_NewRef(lock->owner)
                               : PyLong_FromUnsignedLong(lock->thread);
}

static PyObject *
Lock_repr(LockObject *lock)
{
    if (lock->depth == 0) {
        return PyUnicode_FromFormat("<unlocked %s object at %p>", Py_TYPE(lock)->tp_name,
                                    lock);
    }
    PyObject *owner = Lock_get_owner(lock, NULL);
    if (owner == NULL) {
        return NULL;
    }
    PyObject *text =
        PyUnicode_FromFormat("<locked %s object owner=%R count=%lu at %p>",
                             Py_TYPE(lock)->tp_name, owner, lock->depth, lock);
    Py_DECREF(owner);
    return text;
}

static LockObject *
allocate_lock(PyTypeObject *type, struct module_state *state)
{
    LockObject *lock = (LockObject *)type->tp_alloc(type, 0);
    if (lock != NULL) {
        lock->state = state;
        list_init(&lock->waiters);
    }
    return lock;
}

LockObject *
lock_new(struct module_state *state)
{
    return allocate_lock(state->lock_type, state);
}

static PyObject *
Lock_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    if (PyTuple_GET_SIZE(arguments) > 0 ||
        (keywords != NULL && PyDict_GET_SIZE(keywords) > 0)) {
        PyErr_Format(PyExc_TypeError, "%s() takes no arguments", type->tp_name);
        return NULL;
    }
    return (PyObject *)allocate_lock(type, module_state_of_type(type));
}

static int
Lock_traverse(LockObject *lock, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(lock));
    Py_VISIT(lock->owner);
    return 0;
}

static int
Lock_clear(LockObject *lock)
{
    Py_CLEAR(lock->owner);
    return 0;
}

static void
Lock_dealloc(LockObject *lock)
{
    PyTypeObject *type = Py_TYPE(lock);
    PyObject_GC_UnTrack(lock);
    if (lock->weak_references != NULL) {
        PyObject_ClearWeakRefs((PyObject *)lock);
    }
    parking_clear(&lock->waiters);
    Py_CLEAR(lock->owner);
    type->tp_free(lock);
    Py_DECREF(type);
}

#define FASTCALL(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef Lock_methods[] = {
    {"acquire", FASTCALL(Lock_acquire), METH_FASTCALL | METH_KEYWORDS, Lock_acquire_doc},
    {"release", (PyCFunction)Lock_release, METH_NOARGS, Lock_release_doc},
    {"locked", (PyCFunction)Lock_locked, METH_NOARGS, locked_doc},
    {"__enter__", (PyCFunction)Lock_enter, METH_NOARGS, enter_doc},
    {"__exit__", FASTCALL(Lock_exit), METH_FASTCALL, exit_doc},
    {"_at_fork_reinit", (PyCFunction)Lock_at_fork_reinit, METH_NOARGS, reinit_doc},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef RLock_methods[] = {
    {"acquire", FASTCALL(RLock_acquire), METH_FASTCALL | METH_KEYWORDS,
     RLock_acquire_doc},
    {"release", (PyCFunction)RLock_release, METH_NOARGS, RLock_release_doc},
    {"locked", (PyCFunction)Lock_locked, METH_NOARGS, locked_doc},
    {"__enter__", (PyCFunction)RLock_enter, METH_NOARGS, enter_doc},
    {"__exit__", FASTCALL(RLock_exit), METH_FASTCALL, exit_doc},
    {"_at_fork_reinit", (PyCFunction)Lock_at_fork_reinit, METH_NOARGS, reinit_doc},
    {"_release_save", (PyCFunction)RLock_release_save, METH_NOARGS, release_save_doc},
    {"_acquire_restore", (PyCFunction)RLock_acquire_restore, METH_O, acquire_restore_doc},
    {"_is_owned", (PyCFunction)RLock_is_owned, METH_NOARGS, is_owned_doc},
    {"_recursion_count", (PyCFunction)RLock_recursion_count, METH_NOARGS,
     recursion_count_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Lock_getset[] = {
    {"owner", (getter)Lock_get_owner, NULL,
     PyDoc_STR("The Task that has it; for a thread's main program the ident of the\n"
               "thread, for a hub callback the Hub; None while it is free."),
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef Lock_members[] = {
    {"_is_guard", T_BOOL, offsetof(LockObject, is_guard), 0,
     PyDoc_STR("True in one that is taken without giving way, if it is free.")},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(LockObject, weak_references), READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(
    Lock_doc,
    "Lock()\n--\n\n"
    "A lock of threading's meaning that parks tasks instead of blocking threads.\n\n"
    "For the tasks of all hubs and all threads. First come, first served.\n\n"
    "Source: Python's threading.Lock.");

PyDoc_STRVAR(
    RLock_doc,
    "RLock()\n--\n\n"
    "A lock that its owner may acquire again, and nobody else may release.\n\n"
    "A task is an owner of its own, also among those of one thread. Otherwise as Lock.\n\n"
    "Source: Python's threading.RLock.");

static PyTypeObject *
make_type(PyObject *module, const char *name, const char *doc, PyMethodDef *methods)
{
    PyType_Slot slots[] = {
        {Py_tp_doc, (void *)(uintptr_t)doc},
        {Py_tp_new, Lock_new},
        {Py_tp_dealloc, Lock_dealloc},
        {Py_tp_traverse, Lock_traverse},
        {Py_tp_clear, Lock_clear},
        {Py_tp_repr, Lock_repr},
        {Py_tp_methods, methods},
        {Py_tp_getset, Lock_getset},
        {Py_tp_members, Lock_members},
        {0, NULL},
    };
    PyType_Spec spec = {
        .name = name,
        .basicsize = sizeof(LockObject),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots,
    };
    return add_type(module, &spec);
}

PyTypeObject *
lock_type_new(PyObject *module)
{
    return make_type(module, "pycoronet.Lock", Lock_doc, Lock_methods);
}

PyTypeObject *
recursive_lock_type_new(PyObject *module)
{
    return make_type(module, "pycoronet.RLock", RLock_doc, RLock_methods);
}
