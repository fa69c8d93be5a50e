// py_hooks.c: functions that are called before and after each look at the engine.
//
// They run in whoever polls: the main program, a coroutine, the hub greenlet. So they may not
// wait, and the hub refuses it as it does for transport layers. Invariant: each hook is
// called at most once a round, and one that was added meanwhile from the next on, whatever
// the hooks do to each other.

#include "py_hooks.h"

#include "py_convert.h"
#include "py_handle.h"

typedef struct {
    HandleObject handle; // its function is prepare and its extra check, or None
    uint64_t round;      // of the last call
} HookHandleObject;

static HookHandleObject *
hook_of_node(struct list_node *node)
{
    HandleObject *handle = CONTAINER_OF(node, HandleObject, link);
    return CONTAINER_OF(handle, HookHandleObject, handle);
}

// The first hook that this round has not come to; NULL if there is none. Looked for from the
// beginning each time, for a hook may end any other.
static HandleObject *
next_hook(HubObject *hub)
{
    for (struct list_node *node = hub->hooks.next; node != &hub->hooks;
         node = node->next) {
        HookHandleObject *hook = hook_of_node(node);
        if (hook->round != hub->hook_round) {
            hook->round = hub->hook_round;
            return &hook->handle;
        }
    }
    return NULL;
}

// Calls what [is_check] chooses, with [argument] unless that is NULL.
static void
call_hooks(HubObject *hub, bool is_check, PyObject *argument)
{
    HandleObject *handle;
    hub->hook_round++;
    hub->layer_depth++;
    hub->is_in_hook = true;
    while ((handle = next_hook(hub)) != NULL) {
        PyObject *function = Py_NewRef(is_check ? handle->extra : handle->function);
        if (function != Py_None) {
            PyObject *result = PyObject_CallFunctionObjArgs(function, argument, NULL);
            if (result == NULL) {
                hub_take_exception(hub, function);
            }
            Py_XDECREF(result);
        }
        Py_DECREF(function);
    }
    hub->is_in_hook = false;
    hub->layer_depth--;
}

void
hooks_prepare(HubObject *hub, int64_t timeout_ns)
{
    PyObject *timeout = timeout_to_seconds(timeout_ns);
    if (timeout == NULL) {
        report_exception((PyObject *)hub);
        return;
    }
    call_hooks(hub, false, timeout);
    Py_DECREF(timeout);
}

void
hooks_check(HubObject *hub)
{
    call_hooks(hub, true, NULL);
}

PyDoc_STRVAR(
    add_hook_doc,
    "add_hook($self, /, prepare=None, check=None)\n--\n\n"
    "Have functions called around each look for events; return a handle with cancel().\n\n"
    "prepare(timeout) is called before: timeout is how many seconds the wait may take at\n"
    "most, None without a limit, 0 if something is ready already. What it queues or wakes\n"
    "shortens the wait. check() is called after, before anybody hears of the events. Hooks run\n"
    "in the order they were added, inside whoever waits: they may not wait. What they raise is\n"
    "reported through sys.unraisablehook. They do not keep run() going, and end with the hub;\n"
    "a forked child has none. Raises TypeError without a function, RuntimeError if the hub is\n"
    "closed or closing. Never switches.\n\n"
    "Source: libevent's evwatch_prepare_new and evwatch_check_new.");

static PyObject *
Hub_add_hook(HubObject *hub, PyObject *const *arguments, Py_ssize_t count,
             PyObject *keyword_names)
{
    static const char *const names[] = {"prepare", "check", NULL};
    static const struct parameters parameters = {"add_hook", names, 0, 2};
    PyObject *values[2];
    if (parse_arguments(&parameters, arguments, count, keyword_names, values) < 0 ||
        handle_check_hub(hub) < 0) {
        return NULL;
    }
    bool has_function = false;
    for (int i = 0; i < 2; i++) {
        values[i] = values[i] == NULL ? Py_None : values[i];
        has_function |= values[i] != Py_None;
        if (values[i] != Py_None && !PyCallable_Check(values[i])) {
            return PyErr_Format(PyExc_TypeError,
                                "%s must be callable or None, not %.100s", names[i],
                                Py_TYPE(values[i])->tp_name);
        }
    }
    if (!has_function) {
        PyErr_SetString(PyExc_TypeError, "add_hook() needs prepare, check, or both");
        return NULL;
    }
    HandleObject *handle =
        handle_new(hub->state->hook_type, hub, values[0], values[1], NULL, NULL);
    if (handle != NULL) {
        handle->is_hook = true;
        CONTAINER_OF(handle, HookHandleObject, handle)->round = hub->hook_round;
        handle_start(handle);
    }
    return (PyObject *)handle;
}

PyMethodDef hub_hook_methods[] = {
    {"add_hook", (PyCFunction)(void (*)(void))Hub_add_hook, METH_FASTCALL | METH_KEYWORDS,
     add_hook_doc},
    {NULL, NULL, 0, NULL},
};

PyTypeObject *
hook_type_new(PyObject *module)
{
    static PyGetSetDef attributes[] = {
        {"active", handle_get_active, NULL, handle_active_doc, NULL},
        {NULL, NULL, NULL, NULL, NULL},
    };
    return handle_type_new(module, "pycoronet.HookHandle", sizeof(HookHandleObject),
                           "What Hub.add_hook() returns.\n\nSource: libevent's evwatch.",
                           attributes);
}
