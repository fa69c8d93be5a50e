// py_task_link.c: Task.link() and unlink(): functions that are called when a task has ended.
//
// A link is a record on the heap. The task has a ring of them, in order, and a NULL pointer
// if there are none. When the task ends each one becomes a hub call, which owns the task from
// then on; so the functions are called in the hub, and one that links again is called in a
// later round.

#include "py_task.h"

#include "py_convert.h"

struct task_link {
    struct hub_call call;      // queued once the task has ended
    struct list_node siblings; // the ring: it has no head, task->links is the first
    TaskObject *task;          // borrowed; owned once it is queued
    PyObject *function;        // owned
    bool handles_failure;      // it looks at the outcome, so that need not be reported
    bool is_queued;            // the task has ended and the call is due
};

static struct task_link *
next_link(const struct task_link *link)
{
    return CONTAINER_OF(link->siblings.next, struct task_link, siblings);
}

// Takes a link off its task and lets go of it. May run code.
static void
free_link(struct task_link *link)
{
    TaskObject *task = link->task;
    PyObject *function = link->function;
    bool owns_task = link->is_queued;
    if (task->links == link) {
        task->links = next_link(link) == link ? NULL : next_link(link);
    }
    list_remove(&link->siblings);
    list_remove(&link->call.link);
    PyMem_Free(link);
    Py_DECREF(function);
    if (owns_task) {
        Py_DECREF(task);
    }
}

static void
drop_link(struct hub_call *call, bool is_forked)
{
    (void)is_forked;
    free_link(CONTAINER_OF(call, struct task_link, call));
}

static void
run_link(struct hub_call *call)
{
    struct task_link *link = CONTAINER_OF(call, struct task_link, call);
    TaskObject *task = (TaskObject *)Py_NewRef((PyObject *)link->task);
    PyObject *function = Py_NewRef(link->function);
    free_link(link);
    PyObject *result = PyObject_CallOneArg(function, (PyObject *)task);
    if (result == NULL) {
        hub_take_exception(task->hub, function);
    }
    Py_XDECREF(result);
    Py_DECREF(function);
    Py_DECREF(task);
}

static void
queue_link(struct task_link *link)
{
    Py_INCREF(link->task);
    link->is_queued = true;
    hub_queue_call(link->task->hub, &link->call);
}

void
task_queue_links(TaskObject *task)
{
    if (task->hub->is_closed) {
        // Its thread has ended, and its greenlet was dropped: nobody is left to call them.
        task_drop_links(task);
        return;
    }
    struct task_link *link = task->links;
    do {
        queue_link(link);
        link = next_link(link);
    } while (link != task->links);
}

bool
task_links_handle_failure(TaskObject *task)
{
    struct task_link *link = task->links;
    do {
        if (link == NULL || link->handles_failure) {
            return link != NULL;
        }
        link = next_link(link);
    } while (link != task->links);
    return false;
}

void
task_drop_links(TaskObject *task)
{
    while (task->links != NULL) {
        free_link(task->links);
    }
}

int
task_visit_links(TaskObject *task, visitproc visit, void *arg)
{
    struct task_link *link = task->links;
    while (link != NULL) {
        Py_VISIT(link->function);
        link = next_link(link) == task->links ? NULL : next_link(link);
    }
    return 0;
}

// --- Methods ----------------------------------------------------------------------------

const char task_link_doc[] =
    "link($self, function, /, *, handles_failure=False)\n--\n\n"
    "Have the hub call function(task) once the task has ended, soon if it has already.\n\n"
    "handles_failure: True says that the function looks at how the task ended, so that an\n"
    "exception is not reported when nobody is joining.\n\n"
    "Functions are called in the order they were linked, one linked twice is called twice.\n"
    "They run in the hub and must not wait; spawn() a task that does. What one raises is\n"
    "reported through sys.unraisablehook. Raises TypeError for something not callable,\n"
    "RuntimeError for the main program, if the hub is closed, and from another thread. Never\n"
    "switches.";

PyObject *
Task_link(TaskObject *task, PyObject *const *arguments, Py_ssize_t count,
          PyObject *keyword_names)
{
    static const char *const names[] = {"function", "handles_failure", NULL};
    static const struct parameters parameters = {"link", names, 1, 1};
    PyObject *values[2];
    int handles_failure = 0;
    if (parse_arguments(&parameters, arguments, count, keyword_names, values) < 0 ||
        convert_flag(values[1], &handles_failure) < 0 ||
        hub_check_thread(task->hub, "a Task") < 0) {
        return NULL;
    }
    if (!PyCallable_Check(values[0])) {
        return PyErr_Format(PyExc_TypeError, "link() needs something callable, not %s",
                            Py_TYPE(values[0])->tp_name);
    }
    if (task->is_main || task->hub->is_closed) {
        PyErr_SetString(PyExc_RuntimeError, task->is_main
                                                ? "the main program cannot be linked to"
                                                : "this hub is closed");
        return NULL;
    }
    struct task_link *link = PyMem_Calloc(1, sizeof(*link));
    if (link == NULL) {
        return PyErr_NoMemory();
    }
    hub_call_init(&link->call, run_link, drop_link);
    link->task = task;
    link->function = Py_NewRef(values[0]);
    link->handles_failure = handles_failure != 0;
    if (task->links == NULL) {
        list_init(&link->siblings);
        task->links = link;
    }
    else {
        list_append(&task->links->siblings, &link->siblings);
    }
    if (task_has_ended(task)) {
        queue_link(link);
    }
    Py_RETURN_NONE;
}

// The functions linked to, in order. A new list, NULL with an exception.
static PyObject *
list_functions(TaskObject *task)
{
    PyObject *functions = PyList_New(0);
    struct task_link *link = task->links;
    while (functions != NULL && link != NULL) {
        if (PyList_Append(functions, link->function) < 0) {
            Py_CLEAR(functions);
        }
        link = next_link(link) == task->links ? NULL : next_link(link);
    }
    return functions;
}

// Finds the first link whose function equals [function], for a method is another object each
// time. Comparing may run code that changes the links, so it is done on a list. NULL in
// [*found] if there is none. 0, or -1 with an exception.
static int
find_link(TaskObject *task, PyObject *function, struct task_link **found)
{
    *found = NULL;
    PyObject *functions = list_functions(task);
    if (functions == NULL) {
        return -1;
    }
    int equal = 0;
    PyObject *candidate = NULL; // borrowed
    for (Py_ssize_t i = 0; equal == 0 && i < PyList_GET_SIZE(functions); i++) {
        candidate = PyList_GET_ITEM(functions, i);
        equal = PyObject_RichCompareBool(candidate, function, Py_EQ);
    }
    struct task_link *link = equal > 0 ? task->links : NULL;
    while (link != NULL && link->function != candidate) {
        link = next_link(link) == task->links ? NULL : next_link(link);
    }
    *found = link;
    Py_DECREF(functions);
    return equal < 0 ? -1 : 0;
}

const char task_unlink_doc[] =
    "unlink($self, function, /)\n--\n\n"
    "Have a linked function not be called any more; True if it would have been.\n\n"
    "Of a function linked twice the first one is taken. False: it was called already, or was\n"
    "never linked. Raises RuntimeError from another thread. Never switches.";

PyObject *
Task_unlink(TaskObject *task, PyObject *function)
{
    struct task_link *link;
    if (hub_check_thread(task->hub, "a Task") < 0 ||
        find_link(task, function, &link) < 0) {
        return NULL;
    }
    if (link != NULL) {
        free_link(link);
    }
    return PyBool_FromLong(link != NULL);
}
