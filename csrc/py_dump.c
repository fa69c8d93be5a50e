// py_dump.c: what a hub has registered and who waits, as a list and as text.
//
// For people who look for what keeps a program from going on. What describes an object may
// run its code, which may change any list here: so objects are collected first, by what runs
// nothing, and each is looked at anew when its line is made.

#include "py_hub.h"

#include <stdio.h>

#include "py_callbacks.h"
#include "py_conn.h"
#include "py_convert.h"
#include "py_guest.h"
#include "py_handle.h"
#include "py_task.h"
#include "py_wait.h"

// --- Registrations ----------------------------------------------------------------------

// Whose a descriptor is: a new reference, NULL with an exception.
static PyObject *
describe_owner(HubObject *hub, struct ready_target *target)
{
    SkConnObject *conn = conn_of_target(target);
    if (conn != NULL) {
        return Py_NewRef((PyObject *)conn);
    }
    if (target == &hub->signal_target) {
        return PyUnicode_FromString("signals");
    }
    return guest_owns(target) ? PyUnicode_FromString("asyncio") : foreign_owner(target);
}

static PyObject *
describe_registration(HubObject *hub, int fd)
{
    static const char *const triggers[] = {
        [ENGINE_LEVEL] = "level",
        [ENGINE_EDGE] = "edge",
        [ENGINE_LEVEL_SHARED] = "shared level",
    };
    const struct watch *watch = watch_table_get(&hub->reactor.watches, fd);
    unsigned interest = watch->interest;
    const char *trigger = triggers[watch->trigger];
    PyObject *owner = describe_owner(hub, watch->owner);
    return owner == NULL ? NULL : Py_BuildValue("(iIsN)", fd, interest, trigger, owner);
}

static PyObject *
list_registrations(HubObject *hub)
{
    PyObject *list = PyList_New(0);
    for (int fd = 0; list != NULL && (size_t)fd < hub->reactor.watches.capacity; fd++) {
        if (reactor_is_registered(&hub->reactor, fd) &&
            append_item(list, describe_registration(hub, fd)) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

PyDoc_STRVAR(
    registrations_doc,
    "registrations($self, /)\n--\n\n"
    "What the engine watches: a list of (fd, events, trigger, owner), by fd.\n\n"
    "events: READ, WRITE and PRIORITY, or-ed together. trigger: 'edge', 'level' or 'shared\n"
    "level'. owner: the sk_conn; for another descriptor the Task that waits for it or the\n"
    "handle of once(), or a tuple of one to read and one to write; 'signals' for what wakes\n"
    "the hub for those, 'asyncio' for what its loop watches. A connection that never had to wait is not registered. Never switches.\n\n"
    "Source: libevent's event_base_foreach_event.");

static PyObject *
Hub_registrations(HubObject *hub, PyObject *unused)
{
    (void)unused;
    if (hub_check_thread(hub, "this hub") < 0) {
        return NULL;
    }
    return hub->is_closed ? PyList_New(0) : list_registrations(hub);
}

// --- Text -------------------------------------------------------------------------------

#define LEFT_SIZE 40

// ", 2.500 s left" for an armed timer, else "".
static const char *
describe_left(HubObject *hub, const struct timer *timer, char text[LEFT_SIZE])
{
    text[0] = '\0';
    if (timer != NULL && timer_is_armed(timer)) {
        uint64_t now_ms = hub->reactor.now_ns / 1000000;
        uint64_t left_ms = timer->deadline_ms > now_ms ? timer->deadline_ms - now_ms : 0;
        snprintf(text, LEFT_SIZE, ", %llu.%03u s left",
                 (unsigned long long)(left_ms / 1000), (unsigned)(left_ms % 1000));
    }
    return text;
}

static PyObject *
registration_line(HubObject *hub, PyObject *registration)
{
    int fd;
    unsigned events;
    const char *trigger;
    PyObject *owner;
    if (!PyArg_ParseTuple(registration, "iIsO", &fd, &events, &trigger, &owner)) {
        return NULL;
    }
    PyObject *line = PyUnicode_FromFormat(
        "  fd %d%s%s%s, %s: %R", fd, events & EVENT_READ ? " READ" : "",
        events & EVENT_PRIORITY ? " PRIORITY" : "", events & EVENT_WRITE ? " WRITE" : "",
        trigger, owner);
    if (line == NULL || !Py_IS_TYPE(owner, hub->state->conn_type)) {
        return line;
    }
    PyObject *protocol = protocol_get((SkConnObject *)owner, NULL);
    if (protocol != Py_None) {
        Py_SETREF(line, PyUnicode_FromFormat("%U calls %R", line, protocol));
    }
    Py_DECREF(protocol);
    return line;
}

static int
append_line(HubObject *hub, PyObject *lines, PyObject *line)
{
    (void)hub;
    return append_item(lines, PyUnicode_FromFormat("  %U", line));
}

static int
append_handle(HubObject *hub, PyObject *lines, PyObject *object)
{
    HandleObject *handle = (HandleObject *)object;
    char left[LEFT_SIZE];
    describe_left(hub, handle->timer, left);
    bool is_due = list_is_linked(&handle->call.link);
    return append_item(
        lines, PyUnicode_FromFormat("  %R%s%s", object, left, is_due ? ", due" : ""));
}

static int
append_registration(HubObject *hub, PyObject *lines, PyObject *registration)
{
    return append_item(lines, registration_line(hub, registration));
}

// Appends a line with a title and the length of [objects], which it gives up and which is
// NULL after a failure, and then what [append_object] makes of each. 0, or -1.
static int
append_part(HubObject *hub, PyObject *lines, const char *title, PyObject *objects,
            int (*append_object)(HubObject *hub, PyObject *lines, PyObject *object))
{
    if (objects == NULL) {
        return -1;
    }
    Py_ssize_t count = PyList_GET_SIZE(objects);
    int error = append_item(lines, PyUnicode_FromFormat("%s: %zd", title, count));
    for (Py_ssize_t i = 0; i < count && error == 0; i++) {
        error = append_object(hub, lines, PyList_GET_ITEM(objects, i));
    }
    Py_DECREF(objects);
    return error;
}

static PyObject *
list_handles(struct list_node *head)
{
    PyObject *list = PyList_New(0);
    int error = list == NULL ? -1 : 0;
    for (struct list_node *node = head->next; node != head && error == 0;
         node = node->next) {
        error = PyList_Append(list, (PyObject *)CONTAINER_OF(node, HandleObject, link));
    }
    if (error < 0) {
        Py_CLEAR(list);
    }
    return list;
}

static int
count_calls(const struct list_node *head)
{
    int count = 0;
    for (const struct list_node *node = head->next; node != head; node = node->next) {
        count++;
    }
    return count;
}

static int
append_calls(HubObject *hub, PyObject *lines)
{
    const struct call_queue *queue = &hub->calls;
    return append_item(lines,
                       PyUnicode_FromFormat(
                           "callbacks due: %d HIGH, %d NORMAL, %d LOW, %d of this round",
                           count_calls(&queue->levels[PRIORITY_HIGH]),
                           count_calls(&queue->levels[PRIORITY_NORMAL]),
                           count_calls(&queue->levels[PRIORITY_LOW]),
                           count_calls(&queue->round)));
}

PyDoc_STRVAR(
    dump_doc,
    "dump($self, /)\n--\n\n"
    "What is registered and who waits for what, as text of several lines, for people.\n\n"
    "The engine; each descriptor that it watches, with its owner and whom that calls back;\n"
    "each task with what it waits for and how long it still will; timers, once() and signal\n"
    "handlers; callbacks that are due; hooks. Its form may change. Never switches.\n\n"
    "Source: libevent's event_base_dump_events.");

static PyObject *
Hub_dump(HubObject *hub, PyObject *unused)
{
    (void)unused;
    if (hub_check_thread(hub, "this hub") < 0) {
        return NULL;
    }
    if (hub->is_closed) {
        return PyUnicode_FromString("hub, closed\n");
    }
    reactor_now_ns(&hub->reactor);
    PyObject *lines = PyList_New(0);
    if (lines == NULL ||
        append_item(lines, PyUnicode_FromFormat("hub on %s",
                                                hub->reactor.operations->name)) < 0 ||
        append_part(hub, lines, "registered", list_registrations(hub),
                    append_registration) < 0 ||
        append_part(hub, lines, "tasks", hub_describe_tasks(hub), append_line) < 0 ||
        append_part(hub, lines, "to be called", list_handles(&hub->handles),
                    append_handle) < 0 ||
        append_calls(hub, lines) < 0 ||
        append_part(hub, lines, "hooks", list_handles(&hub->hooks), append_handle) < 0 ||
        append_item(lines, PyUnicode_FromString("")) < 0) {
        Py_XDECREF(lines);
        return NULL;
    }
    PyObject *separator = PyUnicode_FromString("\n");
    PyObject *text = separator == NULL ? NULL : PyUnicode_Join(separator, lines);
    Py_XDECREF(separator);
    Py_DECREF(lines);
    return text;
}

static PyObject *
list_tasks(HubObject *hub)
{
    PyObject *list = PyList_New(0);
    int error = list == NULL ? -1 : 0;
    for (struct list_node *node = hub->tasks.next; node != &hub->tasks && error == 0;
         node = node->next) {
        error = PyList_Append(list, (PyObject *)CONTAINER_OF(node, TaskObject, hub_link));
    }
    if (error < 0) {
        Py_CLEAR(list);
    }
    return list;
}

static PyObject *
list_connections(HubObject *hub)
{
    PyObject *list = PyList_New(0);
    int error = list == NULL ? -1 : 0;
    for (struct list_node *node = hub->connections.next;
         node != &hub->connections && error == 0; node = node->next) {
        error =
            PyList_Append(list, (PyObject *)CONTAINER_OF(node, SkConnObject, hub_link));
    }
    if (error < 0) {
        Py_CLEAR(list);
    }
    return list;
}

static PyObject *
Hub_contents(HubObject *hub, PyObject *unused)
{
    (void)unused;
    if (hub_check_thread(hub, "this hub") < 0) {
        return NULL;
    }
    if (hub->is_closed) {
        return Py_BuildValue("([][][])");
    }
    PyObject *lists[] = {list_tasks(hub), list_handles(&hub->handles),
                         list_connections(hub)};
    bool is_whole = lists[0] != NULL && lists[1] != NULL && lists[2] != NULL;
    PyObject *contents = is_whole ? pack_tuple(lists, 3) : NULL;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(lists); i++) {
        Py_XDECREF(lists[i]);
    }
    return contents;
}

PyMethodDef hub_dump_methods[] = {
    {"registrations", (PyCFunction)Hub_registrations, METH_NOARGS, registrations_doc},
    {"dump", (PyCFunction)Hub_dump, METH_NOARGS, dump_doc},
    {"_contents", (PyCFunction)Hub_contents, METH_NOARGS,
     PyDoc_STR(
         "_contents($self, /)\n--\n\n"
         "Lists: its tasks but the main program, the handles of what it is to call, its\n"
         "connections.")},
    {NULL, NULL, 0, NULL},
};
