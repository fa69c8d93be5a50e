// py_sync_queue_type.c: the types Queue, LifoQueue and SimpleQueue.

#include "py_sync_queue.h"

#include <structmember.h>

#include "py_convert.h"

// --- Arguments --------------------------------------------------------------------------

// block=True, timeout=None as queue's methods take them: without block the timeout does not
// count. Then 0. 0, or -1 with an exception.
static int
convert_patience(PyObject *block, PyObject *timeout, int64_t *timeout_ns)
{
    int is_blocking = 1;
    if (convert_flag(block, &is_blocking) < 0) {
        return -1;
    }
    if (!is_blocking) {
        *timeout_ns = 0;
        return 0;
    }
    return convert_timeout(timeout, timeout_ns);
}

// --- Putting and getting ------------------------------------------------------------------

PyDoc_STRVAR(
    put_doc,
    "put($self, /, item, block=True, timeout=None)\n--\n\n"
    "Put an item at the end, waiting for room if need be.\n\n"
    "block: False raises queue.Full instead of waiting. timeout: seconds to wait at most, then\n"
    "queue.Full is raised; None is no limit.\n\n"
    "Raises ShutDown after shutdown(), ValueError for a negative timeout, RuntimeError in a hub\n"
    "callback that would have to wait. Who waits longest is served first. For any task and\n"
    "any thread. May switch, with block.");

static PyObject *
Queue_put(QueueObject *queue, PyObject *const *arguments, Py_ssize_t count,
          PyObject *keyword_names)
{
    static const char *const names[] = {"item", "block", "timeout", NULL};
    static const struct parameters parameters = {"put", names, 1, 3};
    PyObject *values[3];
    int64_t timeout_ns = -1;
    if (count == 1 && keyword_names == NULL) {
        // As nearly always.
        values[0] = arguments[0];
    }
    else if (parse_arguments(&parameters, arguments, count, keyword_names, values) < 0 ||
             convert_patience(values[1], values[2], &timeout_ns) < 0) {
        return NULL;
    }
    if ((timeout_ns != 0 && sync_count_operation() < 0) ||
        queue_put(queue, values[0], timeout_ns) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    simple_put_doc,
    "put($self, /, item, block=True, timeout=None)\n--\n\n"
    "Put an item at the end. block and timeout (seconds) are ignored, for it never waits.\n\n"
    "Raises ShutDown after shutdown(). For any thread. Never switches.");

static PyObject *
SimpleQueue_put(QueueObject *queue, PyObject *const *arguments, Py_ssize_t count,
                PyObject *keyword_names)
{
    static const char *const names[] = {"item", "block", "timeout", NULL};
    static const struct parameters parameters = {"put", names, 1, 3};
    PyObject *values[3];
    if (parse_arguments(&parameters, arguments, count, keyword_names, values) < 0 ||
        queue_put(queue, values[0], 0) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(put_nowait_doc,
             "put_nowait($self, item, /)\n--\n\n"
             "Put an item without waiting: as put(item, block=False). Never switches.");

static PyObject *
Queue_put_nowait(QueueObject *queue, PyObject *item)
{
    if (queue_put(queue, item, 0) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    get_doc,
    "get($self, /, block=True, timeout=None)\n--\n\n"
    "Take the next item out, waiting for one if need be, and return it.\n\n"
    "block: False raises queue.Empty instead of waiting. timeout: seconds to wait at most,\n"
    "then queue.Empty is raised; None is no limit.\n\n"
    "Raises ShutDown after shutdown() when nothing is left. A task that is cancelled takes\n"
    "nothing. Otherwise as put(). May switch, with block.");

static PyObject *
Queue_get(QueueObject *queue, PyObject *const *arguments, Py_ssize_t count,
          PyObject *keyword_names)
{
    static const char *const names[] = {"block", "timeout", NULL};
    static const struct parameters parameters = {"get", names, 0, 2};
    PyObject *values[2];
    int64_t timeout_ns = -1;
    if ((count > 0 || keyword_names != NULL) &&
        (parse_arguments(&parameters, arguments, count, keyword_names, values) < 0 ||
         convert_patience(values[0], values[1], &timeout_ns) < 0)) {
        return NULL;
    }
    return timeout_ns != 0 && sync_count_operation() < 0 ? NULL
                                                         : queue_get(queue, timeout_ns);
}

PyDoc_STRVAR(get_nowait_doc,
             "get_nowait($self, /)\n--\n\n"
             "Take the next item without waiting: as get(block=False). Never switches.");

static PyObject *
Queue_get_nowait(QueueObject *queue, PyObject *unused)
{
    (void)unused;
    return queue_get(queue, 0);
}

// --- The rest ---------------------------------------------------------------------------

PyDoc_STRVAR(qsize_doc, "qsize($self, /)\n--\n\n"
                        "How many items could be taken at once. Never switches.");

static PyObject *
Queue_qsize(QueueObject *queue, PyObject *unused)
{
    (void)unused;
    Py_ssize_t size = queue_size(queue);
    return size < 0 ? NULL : PyLong_FromSsize_t(size);
}

PyDoc_STRVAR(empty_doc, "empty($self, /)\n--\n\nTrue if qsize() is 0. Never switches.");

static PyObject *
Queue_empty(QueueObject *queue, PyObject *unused)
{
    (void)unused;
    Py_ssize_t size = queue_size(queue);
    return size < 0 ? NULL : PyBool_FromLong(size == 0);
}

PyDoc_STRVAR(full_doc, "full($self, /)\n--\n\n"
                       "True if put() would have to wait. Never switches.");

static PyObject *
Queue_full(QueueObject *queue, PyObject *unused)
{
    (void)unused;
    int is_full = queue_is_full(queue);
    return is_full < 0 ? NULL : PyBool_FromLong(is_full);
}

PyDoc_STRVAR(task_done_doc,
             "task_done($self, /)\n--\n\n"
             "Tell that an item that was got is dealt with, for join().\n\n"
             "Raises ValueError if called more often than put(). Never switches.");

static PyObject *
Queue_task_done(QueueObject *queue, PyObject *unused)
{
    (void)unused;
    if (queue_finish_one(queue) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(join_doc,
             "join($self, /)\n--\n\n"
             "Wait until task_done() was called for each item put. May switch.");

static PyObject *
Queue_join(QueueObject *queue, PyObject *unused)
{
    (void)unused;
    if (queue_join(queue) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    shutdown_doc,
    "shutdown($self, /, immediate=False)\n--\n\n"
    "Take no more items: put() raises ShutDown, and get() does when nothing is left.\n\n"
    "immediate: also drop what is there, each item counting as done. Those who wait to put or\n"
    "get are woken with ShutDown. Never switches.");

static PyObject *
Queue_shutdown(QueueObject *queue, PyObject *const *arguments, Py_ssize_t count,
               PyObject *keyword_names)
{
    static const char *const names[] = {"immediate", NULL};
    static const struct parameters parameters = {"shutdown", names, 0, 1};
    PyObject *immediate;
    int is_immediate = 0;
    if (parse_arguments(&parameters, arguments, count, keyword_names, &immediate) < 0 ||
        convert_flag(immediate, &is_immediate) < 0 ||
        queue_shut_down(queue, is_immediate != 0) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
get_maxsize(QueueObject *queue, void *unused)
{
    (void)unused;
    return PyLong_FromSsize_t(queue->maxsize);
}

static int
set_maxsize(QueueObject *queue, PyObject *number, void *unused)
{
    (void)unused;
    Py_ssize_t maxsize;
    if (number == NULL) {
        PyErr_SetString(PyExc_TypeError, "maxsize cannot be deleted");
        return -1;
    }
    if (convert_size(number, "maxsize", PY_SSIZE_T_MIN, 0, &maxsize) < 0) {
        return -1;
    }
    queue_set_maxsize(queue, maxsize);
    return 0;
}

// --- What a subclass may replace ----------------------------------------------------------

static const char *const hook_names[] = {"_init", "_qsize", "_put", "_get"};

PyDoc_STRVAR(
    init_hook_doc,
    "_init($self, maxsize, /)\n--\n\n"
    "For subclasses that keep the items in their own way, with _qsize(), _put() and\n"
    "_get(): called once at first. The others are called one at a time, with a mutex\n"
    "held; they may not use the queue.");

static PyObject *
Queue_hook_init(QueueObject *queue, PyObject *maxsize)
{
    (void)queue;
    (void)maxsize;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(qsize_hook_doc, "_qsize($self, /)\n--\n\nHow many items are kept.");

static PyObject *
Queue_hook_qsize(QueueObject *queue, PyObject *unused)
{
    (void)unused;
    return PyLong_FromSize_t(queue->count);
}

PyDoc_STRVAR(put_hook_doc, "_put($self, item, /)\n--\n\nKeep an item.");

static PyObject *
Queue_hook_put(QueueObject *queue, PyObject *item)
{
    if (queue_store(queue, item) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(get_hook_doc, "_get($self, /)\n--\n\nLet go of the next item; return it.");

static PyObject *
Queue_hook_get(QueueObject *queue, PyObject *unused)
{
    (void)unused;
    return queue_take(queue, 0);
}

// 1 if [type] has methods for the items of its own, 0 if not, -1 with an exception.
static int
has_hooks(PyTypeObject *type, struct module_state *state)
{
    for (size_t i = 0; i < Py_ARRAY_LENGTH(hook_names); i++) {
        PyObject *own = get_attribute((PyObject *)type, hook_names[i]);
        // Not with an exception set, which interning the name would clear.
        PyObject *ours =
            own == NULL ? NULL
                        : get_attribute((PyObject *)state->queue_type, hook_names[i]);
        bool is_error = ours == NULL;
        bool is_same = own == ours;
        Py_XDECREF(own);
        Py_XDECREF(ours);
        if (is_error || !is_same) {
            return is_error ? -1 : 1;
        }
    }
    return 0;
}

// --- Life ---------------------------------------------------------------------------------

static QueueObject *
allocate_queue(PyTypeObject *type)
{
    QueueObject *queue = (QueueObject *)type->tp_alloc(type, 0);
    if (queue != NULL) {
        queue->state = module_state_of_type(type);
        queue->fork_count = queue->state->fork_count;
        list_init(&queue->getters.waiters);
        list_init(&queue->putters.waiters);
        list_init(&queue->joiners);
    }
    return queue;
}

static PyObject *
Queue_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    (void)arguments; // a subclass may take others
    (void)keywords;
    QueueObject *queue = allocate_queue(type);
    if (queue == NULL) {
        return NULL;
    }
    int is_kept_by_hooks = has_hooks(type, queue->state);
    if (is_kept_by_hooks > 0) {
        queue->mutex = lock_new(queue->state);
    }
    if (is_kept_by_hooks < 0 || (is_kept_by_hooks > 0 && queue->mutex == NULL)) {
        Py_DECREF(queue);
        return NULL;
    }
    return (PyObject *)queue;
}

static PyObject *
LifoQueue_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    QueueObject *queue = (QueueObject *)Queue_new(type, arguments, keywords);
    if (queue != NULL) {
        queue->takes_last = true;
    }
    return (PyObject *)queue;
}

static int
Queue_init(QueueObject *queue, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"maxsize", NULL};
    PyObject *maxsize = NULL;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "|O:Queue", names, &maxsize) ||
        (maxsize != NULL && set_maxsize(queue, maxsize, NULL) < 0)) {
        return -1;
    }
    if (queue->mutex == NULL) {
        return 0;
    }
    PyObject *size = PyLong_FromSsize_t(queue->maxsize);
    PyObject *result =
        size == NULL ? NULL : call_attribute((PyObject *)queue, hook_names[0], size);
    Py_XDECREF(size);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static PyObject *
SimpleQueue_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {NULL};
    return PyArg_ParseTupleAndKeywords(arguments, keywords, ":SimpleQueue", names)
               ? (PyObject *)allocate_queue(type)
               : NULL;
}

static PyObject *
Queue_repr(QueueObject *queue)
{
    PyObject *name = sync_type_name((PyObject *)queue);
    Py_ssize_t size = name == NULL ? -1 : queue_size(queue);
    PyObject *text = NULL;
    if (size >= 0) {
        const char *end = queue->is_shutdown ? " shut down" : "";
        text =
            queue->maxsize > 0
                ? PyUnicode_FromFormat("<%U at %p: size=%zd/%zd%s>", name, queue, size,
                                       queue->maxsize, end)
                : PyUnicode_FromFormat("<%U at %p: size=%zd%s>", name, queue, size, end);
    }
    Py_XDECREF(name);
    return text;
}

static int
Queue_traverse(QueueObject *queue, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(queue));
    Py_VISIT((PyObject *)queue->mutex);
    for (size_t i = 0; i < queue->count; i++) {
        Py_VISIT(queue->slots[(queue->first + i) & (queue->slot_count - 1)]);
    }
    return 0;
}

static int
Queue_clear(QueueObject *queue)
{
    queue_clear(queue);
    return 0;
}

static void
Queue_dealloc(QueueObject *queue)
{
    PyTypeObject *type = Py_TYPE(queue);
    PyObject_GC_UnTrack(queue);
    if (queue->weak_references != NULL) {
        PyObject_ClearWeakRefs((PyObject *)queue);
    }
    parking_clear(&queue->getters.waiters);
    parking_clear(&queue->putters.waiters);
    parking_clear(&queue->joiners);
    queue_clear(queue);
    PyObject *mutex = (PyObject *)queue->mutex;
    queue->mutex = NULL;
    Py_XDECREF(mutex);
    type->tp_free(queue);
    Py_DECREF(type);
}

// --- The types --------------------------------------------------------------------------

#define FASTCALL(function) ((PyCFunction)(void (*)(void))(function))

PyDoc_STRVAR(class_getitem_doc,
             "__class_getitem__($type, item, /)\n--\n\nFor types: Queue[int].");

static PyMethodDef SimpleQueue_methods[] = {
    {"put", FASTCALL(SimpleQueue_put), METH_FASTCALL | METH_KEYWORDS, simple_put_doc},
    {"put_nowait", (PyCFunction)Queue_put_nowait, METH_O, put_nowait_doc},
    {"get", FASTCALL(Queue_get), METH_FASTCALL | METH_KEYWORDS, get_doc},
    {"get_nowait", (PyCFunction)Queue_get_nowait, METH_NOARGS, get_nowait_doc},
    {"qsize", (PyCFunction)Queue_qsize, METH_NOARGS, qsize_doc},
    {"empty", (PyCFunction)Queue_empty, METH_NOARGS, empty_doc},
    {"shutdown", FASTCALL(Queue_shutdown), METH_FASTCALL | METH_KEYWORDS, shutdown_doc},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, class_getitem_doc},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef Queue_methods[] = {
    {"put", FASTCALL(Queue_put), METH_FASTCALL | METH_KEYWORDS, put_doc},
    {"put_nowait", (PyCFunction)Queue_put_nowait, METH_O, put_nowait_doc},
    {"get", FASTCALL(Queue_get), METH_FASTCALL | METH_KEYWORDS, get_doc},
    {"get_nowait", (PyCFunction)Queue_get_nowait, METH_NOARGS, get_nowait_doc},
    {"qsize", (PyCFunction)Queue_qsize, METH_NOARGS, qsize_doc},
    {"empty", (PyCFunction)Queue_empty, METH_NOARGS, empty_doc},
    {"shutdown", FASTCALL(Queue_shutdown), METH_FASTCALL | METH_KEYWORDS, shutdown_doc},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, class_getitem_doc},
    {"full", (PyCFunction)Queue_full, METH_NOARGS, full_doc},
    {"task_done", (PyCFunction)Queue_task_done, METH_NOARGS, task_done_doc},
    {"join", (PyCFunction)Queue_join, METH_NOARGS, join_doc},
    {"_init", (PyCFunction)Queue_hook_init, METH_O, init_hook_doc},
    {"_qsize", (PyCFunction)Queue_hook_qsize, METH_NOARGS, qsize_hook_doc},
    {"_put", (PyCFunction)Queue_hook_put, METH_O, put_hook_doc},
    {"_get", (PyCFunction)Queue_hook_get, METH_NOARGS, get_hook_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Queue_getset[] = {
    {"maxsize", (getter)get_maxsize, (setter)set_maxsize,
     PyDoc_STR("How many items there may be; 0 or less is no limit. It can be changed."),
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef Queue_members[] = {
    {"is_shutdown", T_BOOL, offsetof(QueueObject, is_shutdown), READONLY,
     PyDoc_STR("True after shutdown().")},
    {"unfinished_tasks", T_PYSSIZET, offsetof(QueueObject, unfinished), READONLY,
     PyDoc_STR("Items put whose task_done() has not come yet.")},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(QueueObject, weak_references), READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMemberDef SimpleQueue_members[] = {
    {"is_shutdown", T_BOOL, offsetof(QueueObject, is_shutdown), READONLY,
     PyDoc_STR("True after shutdown().")},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(QueueObject, weak_references), READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};

#define QUEUE_FLAGS                                                                      \
    (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE |                     \
     Py_TPFLAGS_IMMUTABLETYPE)

PyDoc_STRVAR(
    Queue_doc,
    "Queue(maxsize=0)\n--\n\n"
    "A queue of queue.Queue's meaning: first in, first out.\n\n"
    "maxsize: how many items there may be, 0 or less is no limit.\n\n"
    "For the tasks of all hubs and all threads, in any combination. First come, first served:\n"
    "an item that comes while somebody waits is that one's, and counts no more.\n\n"
    "Source: Python's queue.Queue.");

PyTypeObject *
queue_type_new(PyObject *module)
{
    static PyType_Slot slots[] = {
        {Py_tp_doc, (void *)Queue_doc},
        {Py_tp_new, Queue_new},
        {Py_tp_init, Queue_init},
        {Py_tp_dealloc, Queue_dealloc},
        {Py_tp_traverse, Queue_traverse},
        {Py_tp_clear, Queue_clear},
        {Py_tp_repr, Queue_repr},
        {Py_tp_methods, Queue_methods},
        {Py_tp_getset, Queue_getset},
        {Py_tp_members, Queue_members},
        {0, NULL},
    };
    static PyType_Spec spec = {
        .name = "pycoronet.Queue",
        .basicsize = sizeof(QueueObject),
        .flags = QUEUE_FLAGS,
        .slots = slots,
    };
    return add_type(module, &spec);
}

PyDoc_STRVAR(LifoQueue_doc, "LifoQueue(maxsize=0)\n--\n\n"
                            "A Queue whose get() takes what was put last.\n\n"
                            "maxsize: as for Queue.\n\n"
                            "Source: Python's queue.LifoQueue.");

PyTypeObject *
lifo_queue_type_new(PyObject *module)
{
    static PyType_Slot slots[] = {
        {Py_tp_doc, (void *)LifoQueue_doc}, {Py_tp_new, LifoQueue_new},
        {Py_tp_dealloc, Queue_dealloc},     {Py_tp_traverse, Queue_traverse},
        {Py_tp_clear, Queue_clear},         {0, NULL},
    };
    static PyType_Spec spec = {
        .name = "pycoronet.LifoQueue",
        .basicsize = sizeof(QueueObject),
        .flags = QUEUE_FLAGS,
        .slots = slots,
    };
    return sync_add_derived_type(module, &spec, "Queue");
}

PyDoc_STRVAR(
    SimpleQueue_doc,
    "SimpleQueue()\n--\n\n"
    "A queue of queue.SimpleQueue's meaning: without limit, without join().\n\n"
    "put() never waits and may be called from __del__() and signal handlers. Otherwise as\n"
    "Queue.\n\n"
    "Source: Python's queue.SimpleQueue.");

PyTypeObject *
simple_queue_type_new(PyObject *module)
{
    static PyType_Slot slots[] = {
        {Py_tp_doc, (void *)SimpleQueue_doc},
        {Py_tp_new, SimpleQueue_new},
        {Py_tp_dealloc, Queue_dealloc},
        {Py_tp_traverse, Queue_traverse},
        {Py_tp_clear, Queue_clear},
        {Py_tp_repr, Queue_repr},
        {Py_tp_methods, SimpleQueue_methods},
        {Py_tp_members, SimpleQueue_members},
        {0, NULL},
    };
    static PyType_Spec spec = {
        .name = "pycoronet.SimpleQueue",
        .basicsize = sizeof(QueueObject),
        .flags = QUEUE_FLAGS,
        .slots = slots,
    };
    return add_type(module, &spec);
}
