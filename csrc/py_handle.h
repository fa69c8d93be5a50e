// py_handle.h: functions that the hub will call some time, and what cancels them.
//
// Under timers, once() and signal handlers, which embed a HandleObject as their first member,
// and under hooks. The hub owns a reference to each handle until it was called for the last
// time or was cancelled; then the functions are let go of, too. While there are some, but
// hooks, Hub.run() goes on.

#ifndef CORONET_PY_HANDLE_H
#define CORONET_PY_HANDLE_H

#include "py_hub.h"

typedef struct HandleObject HandleObject;

struct HandleObject {
    PyObject_HEAD
    HubObject *hub;        // owned
    struct hub_call call;  // queued while the function is due
    struct list_node link; // on hub->handles, or hub->hooks, while it is active
    PyObject *function;    // owned; NULL when it is over
    PyObject *extra;       // owned, or NULL; what else the kind needs, as it says
    struct timer *timer;   // within the kind's own record, NULL = it has none
    // Gives back what the kind holds besides; NULL = nothing.
    void (*on_end)(HandleObject *handle);
    bool is_hook; // Hub.run() does not wait for it
};

// The handle behind its call.
static inline HandleObject *
handle_of_call(struct hub_call *call)
{
    return CONTAINER_OF(call, HandleObject, call);
}

static inline bool
handle_is_active(const HandleObject *handle)
{
    return list_is_linked(&handle->link);
}

// 0 if the hub takes new handles from the caller; else -1 with a RuntimeError.
int handle_check_hub(HubObject *hub);

// A handle of [type], not active yet, whose call is [run]. A new reference, NULL with an
// exception.
HandleObject *handle_new(PyTypeObject *type, HubObject *hub, PyObject *function,
                         PyObject *extra, void (*run)(struct hub_call *call),
                         void (*on_end)(HandleObject *handle));

// It may be called from now on; the hub takes a reference.
void handle_start(HandleObject *handle);

// It will not be called again; nothing if it is over. The hub's reference goes, so it may be
// the end of the handle.
void handle_end(HandleObject *handle);

// Ends every handle of the hub.
void handles_end_all(HubObject *hub);

// In a forked child: the calls are the parent's. Nothing is released.
void handles_abandon(HubObject *hub);

// What the types have in common. A type with attributes of its own puts HANDLE_ACTIVE among
// them.
extern PyMethodDef handle_methods[];
extern const char handle_active_doc[];
PyObject *handle_get_active(PyObject *handle, void *unused);
PyObject *handle_repr(PyObject *handle);
int handle_traverse(PyObject *handle, visitproc visit, void *arg);
int handle_clear(PyObject *handle);
void handle_dealloc(PyObject *handle);

// Makes a type of [size] bytes with what is common and [attributes].
PyTypeObject *handle_type_new(PyObject *module, const char *name, size_t size,
                              const char *doc, PyGetSetDef *attributes);

#endif
