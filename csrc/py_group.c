// py_group.c: the lower half of TaskGroup: who is in it, who failed, waiting until all ended.
//
// The upper half, __exit__() and which exception leaves the block, is pycoronet/_groups.py.
//
// Invariants:
//   1. A member refers to its group until it has ended; the group's lists only link tasks.
//      So a group whose owner has left it early lives on until its last member ends.
//   2. A failed member moves to the failures, which own it: to keep a failure takes no memory.
//   3. A group that was cancelled stays so: who joins it later is cancelled at once.

#include "py_task.h"

#include "py_convert.h"

struct GroupObject {
    PyObject_HEAD
    TaskObject *owner;         // owned while the block is entered, NULL before and after
    ScopeObject *scope;        // owned from entering on; bounds the body
    PyObject *cancel_reason;   // owned; what its members are cancelled with, or NULL
    struct list_node members;  // tasks that have not ended, by group_link
    struct list_node failures; // tasks that have failed, owned, by group_link
    struct list_node watchers; // who waits until there is no member, by link
    size_t member_count;
    bool was_entered;
    bool is_cancelled;
    bool ends_program; // a member has raised KeyboardInterrupt or SystemExit
};

// --- Members ----------------------------------------------------------------------------

// True while somebody will look at the failures.
static bool
is_attended(const GroupObject *group)
{
    return group->owner != NULL && !task_has_ended(group->owner);
}

bool
group_takes_failure(const TaskObject *task)
{
    return task->group != NULL && is_attended(task->group);
}

static void
remove_member(TaskObject *task)
{
    if (list_is_linked(&task->group_link)) {
        list_remove(&task->group_link);
        task->group->member_count--;
    }
}

// Cancels the body and all members, once; calls nothing.
static void
cancel_group(GroupObject *group, PyObject *reason)
{
    if (group->is_cancelled) {
        return;
    }
    group->is_cancelled = true;
    group->cancel_reason = Py_XNewRef(reason);
    scope_cancel(group->scope, reason);
    for (struct list_node *node = group->members.next; node != &group->members;
         node = node->next) {
        // One that was cancelled before keeps its reason, so this runs no code.
        TaskObject *task = CONTAINER_OF(node, TaskObject, group_link);
        task_cancel(task, task->cancel_reason == NULL ? reason : NULL);
    }
}

static void
keep_failure(GroupObject *group, TaskObject *task)
{
    if (PyErr_GivenExceptionMatches(task->value, PyExc_KeyboardInterrupt) ||
        PyErr_GivenExceptionMatches(task->value, PyExc_SystemExit)) {
        group->ends_program = true; // the main program has got it
    }
    else {
        Py_INCREF(task);
        list_append(&group->failures, &task->group_link);
    }
    cancel_group(group, (PyObject *)task);
}

void
group_note_end(TaskObject *task)
{
    GroupObject *group = task->group;
    remove_member(task);
    if (task->state == TASK_FAILED && is_attended(group)) {
        keep_failure(group, task);
    }
    if (group->member_count == 0) {
        parking_wake_all(&group->watchers, WOKEN_READY);
    }
}

void
group_abandon_member(TaskObject *task)
{
    if (task->group != NULL) {
        remove_member(task);
    }
}

// True if [task] ends before the group does: it is the owner, a member, or in a group whose
// owner is. Whoever owns a group began before its members, so this comes to an end.
static bool
has_inside(const GroupObject *group, TaskObject *task)
{
    while (task != group->owner && task->group != group) {
        if (task->group == NULL || task->group->owner == NULL) {
            return false;
        }
        task = task->group->owner;
    }
    return true;
}

// The group's hub and, in [*task], the running task, both borrowed; NULL with a RuntimeError
// if the group is not entered.
static HubObject *
find_hub(GroupObject *group, TaskObject **task)
{
    if (group->owner == NULL || task_has_ended(group->owner)) {
        PyErr_SetString(PyExc_RuntimeError, group->was_entered
                                                ? "this TaskGroup has been left"
                                                : "this TaskGroup is not entered yet");
        return NULL;
    }
    HubObject *hub = group->owner->hub;
    if (hub_check_thread(hub, "a TaskGroup") < 0 || hub_running_task(hub, task) < 0) {
        return NULL;
    }
    return hub;
}

// The group's hub if the owner runs; NULL with an exception.
static HubObject *
hub_of_owner(GroupObject *group)
{
    TaskObject *task;
    HubObject *hub = find_hub(group, &task);
    // A closed hub has no tasks, and whoever leaves a block then is its owner.
    if (hub != NULL && task != group->owner && !hub->is_closed) {
        PyErr_SetString(PyExc_RuntimeError,
                        "a TaskGroup is left by the task that entered it");
        return NULL;
    }
    return hub;
}

// --- Methods ----------------------------------------------------------------------------

PyDoc_STRVAR(
    spawn_doc,
    "spawn($self, function, /, *args, **kwargs)\n--\n\n"
    "Start function(*args, **kwargs) as a task of the group; return the Task.\n\n"
    "For the task that entered the group and those that are in it, as long as it is not left:\n"
    "otherwise RuntimeError. In a group that was cancelled the task never begins. Raises\n"
    "TypeError for something not callable. Never switches.");

static PyObject *
Group_spawn(GroupObject *group, PyObject *const *arguments, Py_ssize_t count,
            PyObject *keyword_names)
{
    if (count < 1) {
        PyErr_SetString(PyExc_TypeError, "spawn() missing required argument 'function'");
        return NULL;
    }
    TaskObject *running;
    HubObject *hub = find_hub(group, &running);
    if (hub == NULL) {
        return NULL;
    }
    if (running == NULL || !has_inside(group, running)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "only the task that entered this TaskGroup, and tasks in it, can "
                        "spawn into it");
        return NULL;
    }
    TaskObject *task =
        task_new(hub, arguments[0], arguments + 1, count - 1, keyword_names);
    if (task == NULL) {
        return NULL;
    }
    task->group = (GroupObject *)Py_NewRef((PyObject *)group);
    list_append(&group->members, &task->group_link);
    group->member_count++;
    task_queue(task);
    if (group->is_cancelled) {
        task_cancel(task, group->cancel_reason);
    }
    return (PyObject *)task;
}

PyDoc_STRVAR(
    cancel_doc,
    "cancel($self, /, reason=None)\n--\n\n"
    "Cancel the block and all tasks of the group; then the block just ends.\n\n"
    "reason: any object; it becomes the .reason of Cancelled. What fails on the way still comes\n"
    "out as an ExceptionGroup. Without effect before the group is entered, after it is left,\n"
    "and the second time. Raises RuntimeError from another thread. Never switches.");

static PyObject *
Group_cancel(GroupObject *group, PyObject *const *arguments, Py_ssize_t count,
             PyObject *keyword_names)
{
    static const char *const names[] = {"reason", NULL};
    static const struct parameters parameters = {"cancel", names, 0, 1};
    PyObject *reason;
    if (parse_arguments(&parameters, arguments, count, keyword_names, &reason) < 0) {
        return NULL;
    }
    if (group->owner != NULL) {
        if (hub_check_thread(group->owner->hub, "a TaskGroup") < 0) {
            return NULL;
        }
        cancel_group(group, reason);
    }
    Py_RETURN_NONE;
}

static PyObject *
Group_enter(GroupObject *group, PyObject *unused)
{
    (void)unused;
    struct module_state *state = module_state_of_type(Py_TYPE(group));
    if (group->was_entered) {
        PyErr_SetString(PyExc_RuntimeError,
                        "this TaskGroup has been entered: each block takes a new one");
        return NULL;
    }
    TaskObject *task = scope_find_task(state);
    if (task == NULL) {
        return NULL;
    }
    group->scope = scope_open(task);
    if (group->scope == NULL) {
        return NULL;
    }
    group->was_entered = true;
    group->owner = (TaskObject *)Py_NewRef((PyObject *)task);
    return Py_NewRef((PyObject *)group);
}

static PyObject *
Group_check_exit(GroupObject *group, PyObject *unused)
{
    (void)unused;
    return hub_of_owner(group) == NULL ? NULL : Py_NewRef((PyObject *)group->scope);
}

static PyObject *
Group_join(GroupObject *group, PyObject *unused)
{
    (void)unused;
    HubObject *hub = hub_of_owner(group);
    if (hub == NULL) {
        return NULL;
    }
    if (group->member_count == 0 && !hub->is_closed && hub_count_operation(hub) < 0) {
        return NULL;
    }
    // Where the hub was closed nobody runs any more.
    while (group->member_count > 0 && !hub->is_closed) {
        if (hub_park(hub, NULL, &group->watchers, WAITS_FOR_OTHERS, -1, "join",
                     (PyObject *)group) < 0) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

static PyObject *
Group_close(GroupObject *group, PyObject *unused)
{
    (void)unused;
    PyObject *errors = PyList_New(0);
    struct list_node *node;
    while (errors != NULL && (node = list_take_first(&group->failures)) != NULL) {
        TaskObject *task = CONTAINER_OF(node, TaskObject, group_link);
        if (PyList_Append(errors, task->value) < 0) {
            Py_CLEAR(errors);
        }
        Py_DECREF(task);
    }
    Py_CLEAR(group->owner);
    return errors;
}

static PyObject *
Group_list_members(GroupObject *group, PyObject *unused)
{
    (void)unused;
    PyObject *list = PyList_New(0);
    int error = list == NULL ? -1 : 0;
    for (struct list_node *node = group->members.next;
         node != &group->members && error == 0; node = node->next) {
        error =
            PyList_Append(list, (PyObject *)CONTAINER_OF(node, TaskObject, group_link));
    }
    if (error < 0) {
        Py_CLEAR(list);
    }
    return list;
}

// --- The type -----------------------------------------------------------------------------

static PyObject *
Group_repr(GroupObject *group)
{
    const char *what = group->owner != NULL ? ""
                       : group->was_entered ? ", left"
                                            : ", new";
    return PyUnicode_FromFormat("<TaskGroup of %zu tasks%s>", group->member_count, what);
}

static PyObject *
Group_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, ":TaskGroup", names)) {
        return NULL;
    }
    GroupObject *group = (GroupObject *)type->tp_alloc(type, 0);
    if (group != NULL) {
        list_init(&group->members);
        list_init(&group->failures);
        list_init(&group->watchers);
    }
    return (PyObject *)group;
}

static int
Group_traverse(GroupObject *group, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(group));
    Py_VISIT(group->owner);
    Py_VISIT(group->scope);
    Py_VISIT(group->cancel_reason);
    for (struct list_node *node = group->failures.next; node != &group->failures;
         node = node->next) {
        Py_VISIT(CONTAINER_OF(node, TaskObject, group_link));
    }
    return 0;
}

static int
Group_clear(GroupObject *group)
{
    Py_CLEAR(group->owner);
    Py_CLEAR(group->scope);
    Py_CLEAR(group->cancel_reason);
    struct list_node *node;
    while ((node = list_take_first(&group->failures)) != NULL) {
        Py_DECREF(CONTAINER_OF(node, TaskObject, group_link));
    }
    return 0;
}

static void
Group_dealloc(GroupObject *group)
{
    PyTypeObject *type = Py_TYPE(group);
    PyObject_GC_UnTrack(group);
    Group_clear(group);
    type->tp_free(group);
    Py_DECREF(type);
}

static PyObject *
Group_get_ends_program(GroupObject *group, void *unused)
{
    (void)unused;
    return PyBool_FromLong(group->ends_program);
}

static PyMethodDef Group_methods[] = {
    {"spawn", (PyCFunction)(void (*)(void))Group_spawn, METH_FASTCALL | METH_KEYWORDS,
     spawn_doc},
    {"cancel", (PyCFunction)(void (*)(void))Group_cancel, METH_FASTCALL | METH_KEYWORDS,
     cancel_doc},
    {"__enter__", (PyCFunction)Group_enter, METH_NOARGS,
     PyDoc_STR("__enter__($self, /)\n--\n\nBegin the block; for one task, once.")},
    {"_check_exit", (PyCFunction)Group_check_exit, METH_NOARGS,
     PyDoc_STR("_check_exit($self, /)\n--\n\n"
               "Return the body's Scope; RuntimeError where the group cannot be left.")},
    {"_join", (PyCFunction)Group_join, METH_NOARGS,
     PyDoc_STR("_join($self, /)\n--\n\nWait until all members have ended. Switches.")},
    {"_close", (PyCFunction)Group_close, METH_NOARGS,
     PyDoc_STR("_close($self, /)\n--\n\n"
               "Leave the group for good; return what its members have raised.")},
    {"_list_members", (PyCFunction)Group_list_members, METH_NOARGS,
     PyDoc_STR("_list_members($self, /)\n--\n\n"
               "The tasks in it that have not ended. For any thread.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Group_getset[] = {
    {"_ends_program", (getter)Group_get_ends_program, NULL,
     PyDoc_STR("True if a member has raised what ends programs."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(
    Group_doc,
    "GroupBase()\n--\n\nWhat TaskGroup stands on: the tasks, without the block.");

static PyType_Slot Group_slots[] = {
    {Py_tp_doc, (void *)Group_doc},
    {Py_tp_new, Group_new},
    {Py_tp_dealloc, Group_dealloc},
    {Py_tp_traverse, Group_traverse},
    {Py_tp_clear, Group_clear},
    {Py_tp_repr, Group_repr},
    {Py_tp_methods, Group_methods},
    {Py_tp_getset, Group_getset},
    {0, NULL},
};

static PyType_Spec Group_spec = {
    .name = "pycoronet._coronet.GroupBase",
    .basicsize = sizeof(GroupObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Group_slots,
};

PyTypeObject *
group_type_new(PyObject *module)
{
    return add_type(module, &Group_spec);
}
