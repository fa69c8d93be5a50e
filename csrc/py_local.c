// py_local.c: the type Local: attributes that each task has for itself.
//
// Who has values is an *owner*: a task; the hub, for its callbacks; a thread, for its main
// program and for threads without a hub. An owner is made at the first access and freed when
// the task ends, the hub is closed or the thread ends.
//
// The attributes of each owner are a dict, which the Local holds: so a Local that only its own
// values refer to is garbage. A *share* is on the lists of both, for either may go first.

#include "py_local.h"

#include <structmember.h>

#include "py_convert.h"
#include "py_task.h"

struct local_owner {
    struct list_node shares; // by owner_link
    PyObject *key;           // owned; its place in the Locals' dicts
};

typedef struct {
    PyObject_HEAD
    PyObject *weak_references;
    PyObject
        *attributes; // borrowed: those of whoever runs, while one is looked up; else NULL
    PyObject *values; // owned; {owner's key: its attributes}
    PyObject
        *arguments;     // owned tuple; what a subclass was called with, and __init__ gets
    PyObject *keywords; // owned dict or NULL; likewise
    struct list_node shares; // by local_link
} LocalObject;

struct share {
    struct list_node owner_link;
    struct list_node local_link;
    LocalObject *local; // borrowed
    PyObject *key;      // borrowed; the owner's
};

// --- Owners -----------------------------------------------------------------------------

#define OWNER_KEY "pycoronet.local"

static _Thread_local struct local_owner *thread_owner; // of the thread's dictionary

static void
free_share(struct share *share)
{
    list_remove(&share->owner_link);
    list_remove(&share->local_link);
    PyMem_Free(share);
}

void
local_owner_free(struct local_owner **place)
{
    struct local_owner *owner = *place;
    if (owner == NULL) {
        return;
    }
    *place = NULL; // whoever asks from here on is given a new one
    while (!list_is_empty(&owner->shares)) {
        struct share *share = CONTAINER_OF(owner->shares.next, struct share, owner_link);
        PyObject *values = Py_NewRef(share->local->values);
        free_share(share);
        if (PyDict_DelItem(values, owner->key) < 0) {
            PyErr_WriteUnraisable(NULL);
        }
        Py_DECREF(values);
    }
    Py_DECREF(owner->key);
    PyMem_Free(owner);
}

static struct local_owner *
new_owner(struct local_owner **place)
{
    struct local_owner *owner = PyMem_Malloc(sizeof(*owner));
    if (owner == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    owner->key = PyObject_CallNoArgs((PyObject *)&PyBaseObject_Type);
    if (owner->key == NULL) {
        PyMem_Free(owner);
        return NULL;
    }
    list_init(&owner->shares);
    *place = owner;
    return owner;
}

// The thread ends, perhaps seen by another one: its dictionary lets go of the capsule.
static void
end_thread_owner(PyObject *capsule)
{
    struct local_owner *owner = PyCapsule_GetPointer(capsule, OWNER_KEY);
    if (thread_owner == owner) {
        thread_owner = NULL;
    }
    local_owner_free(&owner);
}

static struct local_owner *
new_thread_owner(void)
{
    PyObject *dictionary = PyThreadState_GetDict(); // borrowed
    struct local_owner *owner = NULL;
    if (dictionary == NULL) {
        PyErr_NoMemory(); // what it makes of that is no exception
        return NULL;
    }
    if (new_owner(&owner) == NULL) {
        return NULL;
    }
    PyObject *capsule = PyCapsule_New(owner, OWNER_KEY, end_thread_owner);
    if (capsule == NULL) {
        local_owner_free(&owner);
        return NULL;
    }
    // The capsule owns it from here on.
    int error = PyDict_SetItemString(dictionary, OWNER_KEY, capsule);
    if (error == 0) {
        thread_owner = owner;
    }
    Py_DECREF(capsule);
    return thread_owner;
}

// Whoever runs; NULL with an exception.
static struct local_owner *
running_owner(void)
{
    HubObject *hub = hub_peek();
    TaskObject *task = hub == NULL ? NULL : hub->main_task;
    if (hub != NULL && !hub->is_closed && hub_running_task(hub, &task) < 0) {
        PyErr_Clear(); // the interpreter is being finalised
        task = hub->main_task;
    }
    if (hub == NULL || hub->is_closed || (task != NULL && task->is_main)) {
        return thread_owner != NULL ? thread_owner : new_thread_owner();
    }
    struct local_owner **place = task != NULL ? &task->locals : &hub->locals;
    return *place != NULL ? *place : new_owner(place);
}

// --- Attributes ---------------------------------------------------------------------------

// Makes an empty dict for [owner] and keeps it. Borrowed; NULL with an exception.
static PyObject *
add_attributes(LocalObject *local, struct local_owner *owner)
{
    PyObject *attributes = PyDict_New();
    struct share *share = attributes == NULL ? NULL : PyMem_Calloc(1, sizeof(*share));
    if (share == NULL || PyDict_SetItem(local->values, owner->key, attributes) < 0) {
        if (attributes != NULL && share == NULL) {
            PyErr_NoMemory();
        }
        PyMem_Free(share);
        Py_XDECREF(attributes);
        return NULL;
    }
    share->local = local;
    share->key = owner->key;
    list_append(&owner->shares, &share->owner_link);
    list_append(&local->shares, &share->local_link);
    Py_DECREF(attributes);
    return attributes;
}

// Forgets the attributes of the owner with [key]. May run code.
static void
remove_attributes(LocalObject *local, PyObject *key)
{
    struct list_node *node = local->shares.next;
    while (node != &local->shares) {
        struct share *share = CONTAINER_OF(node, struct share, local_link);
        node = node->next;
        if (share->key == key) {
            free_share(share);
        }
    }
    if (PyDict_DelItem(local->values, key) < 0) {
        // not reached: the owner ends first
        PyErr_Clear(); // the owner has ended meanwhile
    }
}

// The attributes of whoever runs; a subclass sets them up when they are new. A new reference,
// NULL with an exception.
static PyObject *
running_attributes(LocalObject *local)
{
    struct local_owner *owner = running_owner();
    if (owner == NULL) {
        return NULL;
    }
    PyObject *attributes = PyDict_GetItemWithError(local->values, owner->key);
    if (attributes != NULL) {
        return Py_NewRef(attributes);
    }
    attributes = PyErr_Occurred() ? NULL : add_attributes(local, owner);
    if (attributes == NULL) {
        return NULL;
    }
    initproc init = Py_TYPE(local)->tp_init;
    if (init == PyBaseObject_Type.tp_init) {
        return Py_NewRef(attributes);
    }
    PyObject *key = Py_NewRef(owner->key);
    Py_INCREF(attributes);
    if (init((PyObject *)local, local->arguments, local->keywords) < 0) {
        PyObject *exception = take_exception();
        Py_CLEAR(attributes);
        remove_attributes(local, key);
        restore_exception(exception);
    }
    Py_DECREF(key);
    return attributes;
}

static PyObject *
Local_getattro(LocalObject *local, PyObject *name)
{
    PyObject *attributes = running_attributes(local);
    if (attributes == NULL) {
        return NULL;
    }
    // What is looked up first, a data descriptor, may run code and switch. After that nothing
    // looks here any more, so it does no harm that somebody else's stood here meanwhile.
    local->attributes = attributes;
    PyObject *value = PyObject_GenericGetAttr((PyObject *)local, name);
    local->attributes = NULL;
    Py_DECREF(attributes);
    return value;
}

static int
Local_setattro(LocalObject *local, PyObject *name, PyObject *value)
{
    PyObject *attributes = running_attributes(local);
    if (attributes == NULL) {
        return -1;
    }
    local->attributes = attributes;
    int error = PyObject_GenericSetAttr((PyObject *)local, name, value);
    local->attributes = NULL;
    Py_DECREF(attributes);
    return error;
}

static PyObject *
Local_get_dict(LocalObject *local, void *unused)
{
    (void)unused;
    return running_attributes(local);
}

// --- The type -----------------------------------------------------------------------------

static PyObject *
Local_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    if (check_made_of_nothing(type, "Local", arguments, keywords) < 0) {
        return NULL;
    }
    LocalObject *local = (LocalObject *)type->tp_alloc(type, 0);
    if (local == NULL) {
        return NULL;
    }
    list_init(&local->shares);
    local->values = PyDict_New();
    local->arguments = Py_NewRef(arguments);
    local->keywords = Py_XNewRef(keywords);
    // For whoever runs, __init__() is called right after this.
    struct local_owner *owner = local->values == NULL ? NULL : running_owner();
    if (owner == NULL || add_attributes(local, owner) == NULL) {
        Py_DECREF(local);
        return NULL;
    }
    return (PyObject *)local;
}

static int
Local_traverse(LocalObject *local, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(local));
    Py_VISIT(local->values);
    Py_VISIT(local->arguments);
    Py_VISIT(local->keywords);
    return 0;
}

// The values stay an object, for a finaliser may still ask for an attribute.
static int
Local_clear(LocalObject *local)
{
    struct list_node *node;
    while ((node = list_take_first(&local->shares)) != NULL) {
        free_share(CONTAINER_OF(node, struct share, local_link));
    }
    if (local->values != NULL) {
        PyDict_Clear(local->values);
    }
    Py_CLEAR(local->keywords);
    return 0;
}

static void
Local_dealloc(LocalObject *local)
{
    PyTypeObject *type = Py_TYPE(local);
    PyObject_GC_UnTrack(local);
    if (local->weak_references != NULL) {
        PyObject_ClearWeakRefs((PyObject *)local);
    }
    Local_clear(local);
    Py_CLEAR(local->values);
    Py_CLEAR(local->arguments);
    type->tp_free(local);
    Py_DECREF(type);
}

static PyGetSetDef Local_getset[] = {
    {"__dict__", (getter)Local_get_dict, NULL,
     PyDoc_STR("The attributes of whoever asks."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef Local_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(LocalObject, weak_references), READONLY,
     NULL},
    {"__dictoffset__", T_PYSSIZET, offsetof(LocalObject, attributes), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(
    Local_doc,
    "Local()\n--\n\n"
    "Attributes that each task has for itself, as each thread has those of threading.local.\n\n"
    "The main program of a thread has attributes of its own, too, and so have the callbacks of\n"
    "a hub together; a thread needs no hub. A new task begins with none: what is to be\n"
    "inherited belongs in a contextvar. They are freed when the task or thread ends, or the\n"
    "hub is closed.\n\n"
    "A subclass may have an __init__(): it is called for each task that comes for the first\n"
    "time, with the arguments that the object was made with. Never switches.\n\n"
    "Source: Python's threading.local, for tasks.");

static PyType_Slot Local_slots[] = {
    {Py_tp_doc, (void *)Local_doc},   {Py_tp_new, Local_new},
    {Py_tp_dealloc, Local_dealloc},   {Py_tp_traverse, Local_traverse},
    {Py_tp_clear, Local_clear},       {Py_tp_getattro, Local_getattro},
    {Py_tp_setattro, Local_setattro}, {Py_tp_getset, Local_getset},
    {Py_tp_members, Local_members},   {0, NULL},
};

static PyType_Spec Local_spec = {
    .name = "pycoronet.Local",
    .basicsize = sizeof(LocalObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Local_slots,
};

int
local_type_add(PyObject *module)
{
    PyTypeObject *type = add_type(module, &Local_spec);
    Py_XDECREF(type); // the module holds it
    return type == NULL ? -1 : 0;
}
