// py_handle.c: functions that the hub will call some time. See py_handle.h.
//
// A handle that is due queues its hub call, so its function runs in the hub greenlet, where
// nobody may wait. Invariant: a handle that is not active is on no list, holds no function
// and has no timer or descriptor that could make it due.

#include "py_handle.h"

#include "py_convert.h"

int
handle_check_hub(HubObject *hub)
{
    if (hub_check_thread(hub, "this hub") < 0) {
        return -1;
    }
    if (hub->is_closed || hub->is_closing) {
        PyErr_Format(PyExc_RuntimeError, "this hub is %s",
                     hub->is_closed ? "closed" : "closing");
        return -1;
    }
    return 0;
}

// not reached: handles end before the calls of their hub do
static void
drop_nothing(struct hub_call *call, bool is_forked)
{
    (void)call;
    (void)is_forked;
}

HandleObject *
handle_new(PyTypeObject *type, HubObject *hub, PyObject *function, PyObject *extra,
           void (*run)(struct hub_call *call), void (*on_end)(HandleObject *handle))
{
    HandleObject *handle = (HandleObject *)type->tp_alloc(type, 0);
    if (handle != NULL) {
        handle->hub = (HubObject *)Py_NewRef((PyObject *)hub);
        hub_call_init(&handle->call, run, drop_nothing);
        handle->function = Py_NewRef(function);
        handle->extra = Py_XNewRef(extra);
        handle->on_end = on_end;
    }
    return handle;
}

void
handle_start(HandleObject *handle)
{
    HubObject *hub = handle->hub;
    list_append(handle->is_hook ? &hub->hooks : &hub->handles, &handle->link);
    hub->handle_count += !handle->is_hook;
    Py_INCREF((PyObject *)handle);
}

// Nothing can make it due from here on.
static void
release(HandleObject *handle)
{
    list_remove(&handle->link);
    list_remove(&handle->call.link);
    if (handle->timer != NULL) {
        timer_wheel_unlink(&handle->hub->reactor.timers, handle->timer);
    }
    if (handle->on_end != NULL) {
        handle->on_end(handle);
    }
}

void
handle_end(HandleObject *handle)
{
    HubObject *hub = handle->hub;
    if (!handle_is_active(handle)) {
        return;
    }
    release(handle);
    if (!handle->is_hook && --hub->handle_count == 0) {
        hub_note_end(hub);
    }
    handle_clear((PyObject *)handle);
    Py_DECREF((PyObject *)handle);
}

void
handles_end_all(HubObject *hub)
{
    while (!list_is_empty(&hub->handles)) {
        handle_end(CONTAINER_OF(hub->handles.next, HandleObject, link));
    }
    while (!list_is_empty(&hub->hooks)) {
        handle_end(CONTAINER_OF(hub->hooks.next, HandleObject, link));
    }
}

void
handles_abandon(HubObject *hub)
{
    struct list_node *node;
    list_move_all(&hub->hooks, &hub->handles);
    while ((node = list_take_first(&hub->handles)) != NULL) {
        HandleObject *handle = CONTAINER_OF(node, HandleObject, link);
        release(handle);
    }
    hub->handle_count = 0;
}

// --- What the types share ---------------------------------------------------------------

PyDoc_STRVAR(cancel_doc,
             "cancel($self, /)\n--\n\n"
             "Have the function not be called any more; nothing if it is over. Never "
             "switches.");

static PyObject *
cancel(PyObject *self, PyObject *unused)
{
    HandleObject *handle = (HandleObject *)self;
    (void)unused;
    if (hub_check_thread(handle->hub, "the handle") < 0) {
        return NULL;
    }
    handle_end(handle);
    Py_RETURN_NONE;
}

PyMethodDef handle_methods[] = {
    {"cancel", cancel, METH_NOARGS, cancel_doc},
    {NULL, NULL, 0, NULL},
};

const char handle_active_doc[] = "True while it is still to be called.";

PyObject *
handle_get_active(PyObject *handle, void *unused)
{
    (void)unused;
    return PyBool_FromLong(handle_is_active((HandleObject *)handle));
}

PyObject *
handle_repr(PyObject *self)
{
    HandleObject *handle = (HandleObject *)self;
    const char *name = strrchr(Py_TYPE(self)->tp_name, '.');
    name = name == NULL ? Py_TYPE(self)->tp_name : name + 1;
    if (!handle_is_active(handle)) {
        return PyUnicode_FromFormat("<%s, over>", name);
    }
    PyObject *function = handle->function == Py_None ? handle->extra : handle->function;
    return PyUnicode_FromFormat("<%s of %R>", name, function);
}

int
handle_traverse(PyObject *self, visitproc visit, void *arg)
{
    HandleObject *handle = (HandleObject *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(handle->hub);
    Py_VISIT(handle->function);
    Py_VISIT(handle->extra);
    return 0;
}

int
handle_clear(PyObject *self)
{
    HandleObject *handle = (HandleObject *)self;
    Py_CLEAR(handle->function);
    Py_CLEAR(handle->extra);
    return 0;
}

// Only when it is over, for the hub holds it until then.
void
handle_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    handle_clear(self);
    Py_CLEAR(((HandleObject *)self)->hub);
    type->tp_free(self);
    Py_DECREF(type);
}

PyTypeObject *
handle_type_new(PyObject *module, const char *name, size_t size, const char *doc,
                PyGetSetDef *attributes)
{
    PyType_Slot slots[] = {
        {Py_tp_doc, (void *)(uintptr_t)doc}, {Py_tp_dealloc, handle_dealloc},
        {Py_tp_traverse, handle_traverse},   {Py_tp_clear, handle_clear},
        {Py_tp_repr, handle_repr},           {Py_tp_methods, handle_methods},
        {Py_tp_getset, attributes},          {0, NULL},
    };
    PyType_Spec spec = {
        .name = name,
        .basicsize = (int)size,
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
                 Py_TPFLAGS_DISALLOW_INSTANTIATION,
        .slots = slots,
    };
    return add_type(module, &spec);
}
