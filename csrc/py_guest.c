// py_guest.c: the type Guest: event loops of others that live in a hub. See py_guest.h.
//
// Descriptors are watched by level, as selectors do it. So what a guest leaves unread is
// reported again, and so is what came while nobody looked. Invariants:
//   1. A watch is claimed in the reactor exactly as long as it exists; it is found by its
//      number, and gone once that number was given out anew.
//   2. Events are collected until the guest takes them. Until then its step is due, so a
//      level that ends each poll is no busy loop.
//   3. A guest that has ended watches nothing, has no timer and is never stepped.

#include "py_guest.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "py_convert.h"
#include "py_wait.h"

#define NS_PER_SECOND 1e9
// A time further away than this is never waited for in one go: the step looks again.
#define LONGEST_WAIT_NS UINT64_C(31536000000000000)

typedef struct {
    PyObject_HEAD
    HubObject *hub;        // owned
    PyObject *step;        // owned; NULL once it has ended
    PyObject *on_close;    // owned; called when the hub is about to close; NULL likewise
    struct hub_call call;  // queued while a step is due
    struct timer timer;    // armed until the guest's next time
    struct list_node link; // on hub->guests until it ends
    struct list_node watches; // all there are, by link
    struct list_node ready;   // those with events not taken yet, by ready_link
    bool is_told;             // that the hub is about to close
} GuestObject;

// A descriptor that the guest watches.
struct guest_watch {
    struct ready_target target;
    GuestObject *guest; // borrowed; it frees its watches
    int fd;
    unsigned events; // EVENT_READ, EVENT_WRITE
    unsigned seen;   // what came since it was last taken
    struct list_node link;
    struct list_node ready_link;
};

static bool
has_ended(const GuestObject *guest)
{
    return guest->step == NULL;
}

// --- Watches ----------------------------------------------------------------------------

// Errors and hang-ups end the waiting for either direction.
static unsigned
directions_of(unsigned ready)
{
    unsigned both = ready & (EVENT_ERROR | EVENT_HANGUP) ? EVENT_READ | EVENT_WRITE : 0;
    unsigned end = ready & EVENT_READ_HANGUP ? EVENT_READ : 0;
    return (ready & (EVENT_READ | EVENT_WRITE)) | both | end;
}

static bool
take_guest_event(struct ready_target *target, unsigned ready)
{
    struct guest_watch *watch = CONTAINER_OF(target, struct guest_watch, target);
    GuestObject *guest = watch->guest;
    watch->seen |= directions_of(ready);
    if (!list_is_linked(&watch->ready_link)) {
        list_append(&guest->ready, &watch->ready_link);
    }
    hub_queue_call(guest->hub, &guest->call);
    return true;
}

static void
free_watch(struct guest_watch *watch)
{
    list_remove(&watch->link);
    list_remove(&watch->ready_link);
    reactor_release(&watch->guest->hub->reactor, watch->fd);
    LIVE_COUNT(LIVE_GUEST_WATCHES, -1);
    free(watch);
}

static void
end_watch(struct guest_watch *watch)
{
    HubObject *hub = watch->guest->hub;
    free_watch(watch);
    hub->kernel_wait_count--;
    if (--hub->handle_count == 0) {
        hub_note_end(hub);
    }
}

static void
lose_guest_watch(struct ready_target *target, bool is_forked)
{
    struct guest_watch *watch = CONTAINER_OF(target, struct guest_watch, target);
    if (is_forked) {
        // not reached: guests of the parent end first
        free_watch(watch); // the child counts anew
    }
    else {
        end_watch(watch);
    }
}

bool
guest_owns(const struct ready_target *target)
{
    return target->on_ready == take_guest_event;
}

// The guest's watch of [fd], or NULL.
static struct guest_watch *
find_watch(GuestObject *guest, int fd)
{
    struct ready_target *owner = reactor_owner(&guest->hub->reactor, fd);
    if (owner == NULL || !guest_owns(owner)) {
        return NULL;
    }
    struct guest_watch *watch = CONTAINER_OF(owner, struct guest_watch, target);
    return watch->guest == guest ? watch : NULL;
}

// 0 if no connection and nobody else has [fd]; else -1 with an exception.
static int
check_owner(HubObject *hub, int fd)
{
    SkConnObject *conn;
    if (hub_find_conn(hub, fd, &conn) < 0) {
        return -1;
    }
    if (conn != NULL) {
        PyErr_Format(PyExc_ValueError,
                     "descriptor %d belongs to an sk_conn, and no other loop can have it",
                     fd);
        return -1;
    }
    if (reactor_owner(&hub->reactor, fd) != NULL) {
        PyErr_Format(hub->state->BusyError, "somebody waits for descriptor %d already",
                     fd);
        return -1;
    }
    return 0;
}

// A new watch, claimed but not registered. NULL with an exception.
static struct guest_watch *
open_watch(GuestObject *guest, int fd)
{
    HubObject *hub = guest->hub;
    if (check_owner(hub, fd) < 0) {
        return NULL;
    }
    struct guest_watch *watch = calloc(1, sizeof(*watch));
    if (watch == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    watch->target = (struct ready_target){take_guest_event, lose_guest_watch};
    watch->guest = guest;
    watch->fd = fd;
    int error = reactor_claim(&hub->reactor, fd, &watch->target);
    if (error < 0) {
        free(watch);
        raise_errno(error);
        return NULL;
    }
    LIVE_COUNT(LIVE_GUEST_WATCHES, 1);
    list_append(&guest->watches, &watch->link);
    hub->handle_count++;
    hub->kernel_wait_count++;
    return watch;
}

// --- A guest's end ----------------------------------------------------------------------

static void
stop_timer(GuestObject *guest)
{
    HubObject *hub = guest->hub;
    if (timer_is_armed(&guest->timer)) {
        timer_wheel_disarm(&hub->reactor.timers, &guest->timer);
        if (--hub->handle_count == 0) {
            hub_note_end(hub);
        }
    }
}

static int
Guest_clear(GuestObject *guest)
{
    Py_CLEAR(guest->step);
    Py_CLEAR(guest->on_close);
    return 0;
}

// The hub's reference goes, so it may be the end of the guest.
static void
end_guest(GuestObject *guest)
{
    HubObject *hub = guest->hub;
    if (has_ended(guest)) {
        return; // not reached: a guest ends once
    }
    while (!list_is_empty(&guest->watches)) {
        end_watch(CONTAINER_OF(guest->watches.next, struct guest_watch, link));
    }
    stop_timer(guest);
    timer_wheel_unlink(&hub->reactor.timers, &guest->timer);
    list_remove(&guest->call.link);
    list_remove(&guest->link);
    hub_note_end(hub); // one that closes waits for its guests
    Guest_clear(guest);
    Py_DECREF((PyObject *)guest);
}

// Looked for from the beginning each time, for one that is told may end any other.
static GuestObject *
next_to_tell(HubObject *hub)
{
    for (struct list_node *node = hub->guests.next; node != &hub->guests;
         node = node->next) {
        GuestObject *guest = CONTAINER_OF(node, GuestObject, link);
        if (!guest->is_told) {
            return guest;
        }
    }
    return NULL;
}

void
guests_announce_close(HubObject *hub)
{
    GuestObject *guest;
    while ((guest = next_to_tell(hub)) != NULL) {
        guest->is_told = true;
        PyObject *on_close = Py_NewRef(guest->on_close);
        PyObject *result = PyObject_CallNoArgs(on_close);
        if (result == NULL) {
            hub_take_exception(hub, on_close);
        }
        Py_XDECREF(result);
        Py_DECREF(on_close);
    }
}

void
guests_end_all(HubObject *hub)
{
    while (!list_is_empty(&hub->guests)) {
        end_guest(CONTAINER_OF(hub->guests.next, GuestObject, link));
    }
}

void
guests_abandon(HubObject *hub)
{
    struct list_node *node;
    while ((node = list_take_first(&hub->guests)) != NULL) {
        GuestObject *guest = CONTAINER_OF(node, GuestObject, link);
        while (!list_is_empty(&guest->watches)) {
            free_watch(CONTAINER_OF(guest->watches.next, struct guest_watch, link));
        }
        timer_wheel_unlink(&hub->reactor.timers, &guest->timer);
        list_remove(&guest->call.link);
        // It counts as ended. What its functions refer to is the parent's, and so is the
        // reference that is never given back.
        guest->step = guest->on_close = NULL;
    }
}

// --- Steps ------------------------------------------------------------------------------

static void
run_step(struct hub_call *call)
{
    GuestObject *guest = CONTAINER_OF(call, GuestObject, call);
    HubObject *hub = guest->hub;
    PyObject *step = Py_NewRef(guest->step); // which may end the guest
    hub->is_in_guest = true;
    PyObject *result = PyObject_CallNoArgs(step);
    hub->is_in_guest = false;
    if (result == NULL) {
        hub_take_exception(hub, step);
    }
    Py_XDECREF(result);
    Py_DECREF(step);
}

// not reached: guests end before the calls of their hub do
static void
drop_nothing(struct hub_call *call, bool is_forked)
{
    (void)call;
    (void)is_forked;
}

static void
become_due(struct timer *timer)
{
    GuestObject *guest = CONTAINER_OF(timer, GuestObject, timer);
    guest->hub->handle_count--; // the call that is due keeps run() going
    hub_queue_call(guest->hub, &guest->call);
}

// --- Methods ----------------------------------------------------------------------------

// 0 if the guest has not ended and this is its thread; else -1 with a RuntimeError.
static int
check_guest(GuestObject *guest)
{
    if (hub_check_thread(guest->hub, "this event loop") < 0) {
        return -1;
    }
    if (has_ended(guest)) {
        PyErr_SetString(PyExc_RuntimeError, "this guest of the hub has ended");
        return -1;
    }
    return 0;
}

PyDoc_STRVAR(
    watch_doc,
    "watch($self, fd, events, /)\n--\n\n"
    "Have a step taken whenever a descriptor is ready; change what it is watched for.\n\n"
    "events: READ, WRITE, or both. Raises ValueError for an sk_conn's descriptor, BusyError if\n"
    "somebody else waits for it, OSError if it cannot be watched. Never switches.");

static PyObject *
Guest_watch(GuestObject *guest, PyObject *const *arguments, Py_ssize_t count)
{
    int fd;
    unsigned events;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "watch() takes a descriptor and events");
        return NULL;
    }
    if (check_guest(guest) < 0 || convert_events(arguments[1], &events) < 0 ||
        (fd = PyObject_AsFileDescriptor(arguments[0])) < 0) {
        return NULL;
    }
    if (events & EVENT_PRIORITY) {
        PyErr_SetString(PyExc_ValueError, "a guest's events are READ and WRITE");
        return NULL;
    }
    struct guest_watch *watch = find_watch(guest, fd);
    if (watch == NULL && (watch = open_watch(guest, fd)) == NULL) {
        return NULL;
    }
    watch->events = events;
    int error = reactor_register(&guest->hub->reactor, fd, events, ENGINE_LEVEL);
    if (error < 0) {
        end_watch(watch);
        return raise_errno(error);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(unwatch_doc,
             "unwatch($self, fd, /)\n--\n\n"
             "Watch a descriptor no more; nothing if it is not watched. Never switches.");

static PyObject *
Guest_unwatch(GuestObject *guest, PyObject *number)
{
    int fd = PyObject_AsFileDescriptor(number);
    if (fd < 0) {
        return NULL;
    }
    if (!has_ended(guest)) {
        if (hub_check_thread(guest->hub, "this event loop") < 0) {
            return NULL;
        }
        struct guest_watch *watch = find_watch(guest, fd);
        if (watch != NULL) {
            end_watch(watch);
        }
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(take_doc,
             "take($self, /)\n--\n\n"
             "What has become ready since the last call: a list of (fd, events), "
             "READ and WRITE\nor-ed together. Never switches.");

static PyObject *
Guest_take(GuestObject *guest, PyObject *unused)
{
    (void)unused;
    if (check_guest(guest) < 0) {
        return NULL;
    }
    PyObject *list = PyList_New(0);
    struct list_node *node;
    while (list != NULL && (node = list_take_first(&guest->ready)) != NULL) {
        struct guest_watch *watch = CONTAINER_OF(node, struct guest_watch, ready_link);
        unsigned seen = watch->seen & watch->events; // it may be watched for less by now
        watch->seen = 0;
        PyObject *item = seen == 0 ? NULL : Py_BuildValue("(iI)", watch->fd, seen);
        if (seen != 0 && (item == NULL || PyList_Append(list, item) < 0)) {
            Py_CLEAR(list); // by level: it is reported again
        }
        Py_XDECREF(item);
    }
    return list;
}

PyDoc_STRVAR(
    wake_doc,
    "wake($self, /)\n--\n\n"
    "Have a step taken soon; nothing if the guest has ended. For any thread. Never "
    "switches.");

static PyObject *
Guest_wake(GuestObject *guest, PyObject *unused)
{
    (void)unused;
    HubObject *hub = guest->hub;
    if (!has_ended(guest)) {
        hub_queue_call(hub, &guest->call);
        if (hub->is_polling) {
            hub->reactor.operations->wake(hub->reactor.engine);
        }
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    wake_at_doc,
    "wake_at($self, when, /)\n--\n\n"
    "Have a step taken at a time of the hub's clock, in seconds; None for no time.\n\n"
    "It takes the place of the time asked for before. Never switches.");

static PyObject *
Guest_wake_at(GuestObject *guest, PyObject *when)
{
    if (check_guest(guest) < 0) {
        return NULL;
    }
    HubObject *hub = guest->hub;
    if (when == Py_None) {
        stop_timer(guest);
        Py_RETURN_NONE;
    }
    double seconds = PyFloat_AsDouble(when);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    uint64_t latest_ns = reactor_now_ns(&hub->reactor) + LONGEST_WAIT_NS;
    double when_ns = ceil(seconds * NS_PER_SECOND);
    uint64_t deadline_ns = 0; // also for NaN, which no heap puts anywhere sensible
    if (when_ns > 0) {
        deadline_ns = when_ns < (double)latest_ns ? (uint64_t)when_ns : latest_ns;
    }
    hub->handle_count += !timer_is_armed(&guest->timer);
    reactor_arm_at(&hub->reactor, &guest->timer, deadline_ns);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(close_doc,
             "close($self, /)\n--\n\n"
             "End: nothing is watched and no step is taken any more. Idempotent. Never "
             "switches.");

static PyObject *
Guest_close(GuestObject *guest, PyObject *unused)
{
    (void)unused;
    if (!has_ended(guest)) {
        if (hub_check_thread(guest->hub, "this event loop") < 0) {
            return NULL;
        }
        end_guest(guest);
    }
    Py_RETURN_NONE;
}

// --- The type ---------------------------------------------------------------------------

static PyObject *
Guest_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"step", "on_close", NULL};
    PyObject *step, *on_close;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OO:Guest", names, &step,
                                     &on_close)) {
        return NULL;
    }
    if (!PyCallable_Check(step) || !PyCallable_Check(on_close)) {
        PyErr_SetString(PyExc_TypeError, "Guest() needs two functions");
        return NULL;
    }
    HubObject *hub = hub_get(module_state_of_type(type));
    if (hub == NULL) {
        return NULL;
    }
    if (hub->is_closed || hub->is_closing) {
        PyErr_SetString(PyExc_RuntimeError, "this hub is closed, or closing");
        return NULL;
    }
    GuestObject *guest = (GuestObject *)type->tp_alloc(type, 0);
    if (guest == NULL) {
        return NULL;
    }
    guest->hub = (HubObject *)Py_NewRef((PyObject *)hub);
    guest->step = Py_NewRef(step);
    guest->on_close = Py_NewRef(on_close);
    hub_call_init(&guest->call, run_step, drop_nothing);
    timer_init(&guest->timer, become_due);
    list_init(&guest->watches);
    list_init(&guest->ready);
    list_append(&hub->guests, &guest->link);
    return Py_NewRef((PyObject *)guest); // the other reference is the hub's
}

static int
Guest_traverse(GuestObject *guest, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(guest));
    Py_VISIT(guest->hub);
    Py_VISIT(guest->step);
    Py_VISIT(guest->on_close);
    return 0;
}

// Only when it has ended, for the hub holds it until then.
static void
Guest_dealloc(GuestObject *guest)
{
    PyTypeObject *type = Py_TYPE(guest);
    PyObject_GC_UnTrack(guest);
    Guest_clear(guest);
    Py_CLEAR(guest->hub);
    type->tp_free(guest);
    Py_DECREF(type);
}

static PyMethodDef Guest_methods[] = {
    {"watch", (PyCFunction)(void (*)(void))Guest_watch, METH_FASTCALL, watch_doc},
    {"unwatch", (PyCFunction)Guest_unwatch, METH_O, unwatch_doc},
    {"take", (PyCFunction)Guest_take, METH_NOARGS, take_doc},
    {"wake", (PyCFunction)Guest_wake, METH_NOARGS, wake_doc},
    {"wake_at", (PyCFunction)Guest_wake_at, METH_O, wake_at_doc},
    {"close", (PyCFunction)Guest_close, METH_NOARGS, close_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(
    Guest_doc,
    "Guest(step, on_close)\n--\n\n"
    "Another event loop that lives in the hub of this thread, until close().\n\n"
    "step() is a callback of the hub: it must not wait. on_close() is called when the hub is\n"
    "about to close: from then on the guest has some seconds to end its affairs and close. Its\n"
    "descriptors and its time keep Hub.run() going. A forked child has no guests.");

static PyType_Slot Guest_slots[] = {
    {Py_tp_doc, (void *)Guest_doc},
    {Py_tp_new, Guest_new},
    {Py_tp_dealloc, Guest_dealloc},
    {Py_tp_traverse, Guest_traverse},
    {Py_tp_clear, Guest_clear},
    {Py_tp_methods, Guest_methods},
    {0, NULL},
};

static PyType_Spec Guest_spec = {
    .name = "pycoronet._coronet.Guest",
    .basicsize = sizeof(GuestObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Guest_slots,
};

PyTypeObject *
guest_type_new(PyObject *module)
{
    return add_type(module, &Guest_spec);
}
