// py_wait.c: waiting for descriptors that are not connections.
//
// wait_fd() on a foreign descriptor adds interest for that wait and takes it away after:
// nothing may be assumed about what others do with the file meanwhile. Adding or changing
// interest reports what is ready already, so edges are enough, and the registration of a
// file that was closed behind our back while a duplicate lives does not end every later
// poll, as a level would. One reader and one writer may wait for the same descriptor; they
// share the registration: when one of them leaves it changes, and so the other hears of
// what came in between. On a descriptor that an sk_conn owns, the connection's own waiters
// are used.

#include "py_wait.h"

#include <errno.h>
#include <stdlib.h>

#include "py_conn.h"
#include "py_convert.h"
#include "py_handle.h"
#include "py_task.h"

// A descriptor somebody waits for. It exists as long as there is such a wait.
struct foreign_watch {
    struct ready_target target;
    HubObject *hub;  // borrowed from those who wait
    int fd;          // -1 once the number was closed or given out anew
    uint64_t device; // with inode: which file the number meant
    uint64_t inode;
    struct foreign_wait reader; // wants what is not only writing
    struct foreign_wait writer; // wants writing alone
};

#define WAITABLE_EVENTS ((unsigned)(EVENT_READ | EVENT_WRITE | EVENT_PRIORITY))
#define END_EVENTS ((unsigned)(EVENT_ERROR | EVENT_HANGUP | EVENT_READ_HANGUP))

// Wakes or calls whoever waits there if [ready] has what it asked for or one of [ends].
static bool
wake_foreign_waiter(HubObject *hub, struct foreign_wait *wait, unsigned ready,
                    unsigned ends)
{
    unsigned seen = ready & (wait->events | ends);
    if (seen == 0) {
        return false;
    }
    if (wait->call != NULL) {
        wait->seen |= seen;
        hub_queue_call(hub, wait->call);
        return true;
    }
    if (wait->waiter == NULL || !waiter_wake(hub, wait->waiter, WOKEN_READY)) {
        return false;
    }
    wait->seen = seen;
    return true;
}

static bool
take_foreign_event(struct ready_target *target, unsigned ready)
{
    struct foreign_watch *watch = CONTAINER_OF(target, struct foreign_watch, target);
    bool woke = wake_foreign_waiter(watch->hub, &watch->reader, ready, END_EVENTS);
    // That the peer sends no more is nothing to a writer.
    return woke | wake_foreign_waiter(watch->hub, &watch->writer, ready,
                                      EVENT_ERROR | EVENT_HANGUP);
}

static void
tell_closed(HubObject *hub, struct foreign_wait *wait)
{
    if (wait->waiter != NULL) {
        waiter_wake(hub, wait->waiter, WOKEN_CLOSED);
    }
    if (wait->call != NULL) {
        wait->seen = EVENT_HANGUP;
        hub_queue_call(hub, wait->call);
    }
}

static void
lose_foreign_watch(struct ready_target *target, bool is_forked)
{
    struct foreign_watch *watch = CONTAINER_OF(target, struct foreign_watch, target);
    if (is_forked) {
        // Its waiters were abandoned, all but perhaps the forking one, which runs.
        watch->reader = watch->writer = (struct foreign_wait){.watch = watch};
        return;
    }
    reactor_release(&watch->hub->reactor, watch->fd);
    watch->fd = -1;
    tell_closed(watch->hub, &watch->reader);
    tell_closed(watch->hub, &watch->writer);
}

bool
hub_is_same_file(HubObject *hub, int fd, uint64_t device, uint64_t inode,
                 const struct io_description *description)
{
    if (device != description->device || inode != description->inode) {
        return false;
    }
    // A kqueue forgets a number when it is closed, so where the file itself cannot be
    // told from others, what the engine knows of the number can.
    return description->has_identity || reactor_still_watches(&hub->reactor, fd);
}

// The watch of [fd], which is this file; made if there is none. NULL with an exception.
static struct foreign_watch *
open_watch(HubObject *hub, int fd, const struct io_description *description)
{
    struct ready_target *owner = reactor_owner(&hub->reactor, fd);
    if (owner != NULL && owner->on_ready == take_foreign_event) {
        struct foreign_watch *known = CONTAINER_OF(owner, struct foreign_watch, target);
        if (hub_is_same_file(hub, fd, known->device, known->inode, description)) {
            return known;
        }
        // Closed behind our back, and the number given out anew.
        lose_foreign_watch(owner, false);
    }
    struct foreign_watch *watch = calloc(1, sizeof(*watch));
    if (watch == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    watch->target = (struct ready_target){take_foreign_event, lose_foreign_watch};
    watch->reader.watch = watch->writer.watch = watch;
    watch->hub = hub;
    watch->fd = fd;
    watch->device = description->device;
    watch->inode = description->inode;
    int error = reactor_claim(&hub->reactor, fd, &watch->target);
    if (error < 0) {
        free(watch);
        if (error == -EEXIST) {
            PyErr_Format(hub->state->BusyError,
                         "an asyncio loop waits for descriptor %d already", fd);
        }
        else {
            raise_errno(error);
        }
        return NULL;
    }
    LIVE_COUNT(LIVE_FOREIGN_WATCHES, 1);
    return watch;
}

// Has the engine watch for what the present waiters want; closes a watch without any.
static int
update_watch(struct foreign_watch *watch)
{
    struct reactor *reactor = &watch->hub->reactor;
    if (watch->reader.events == 0 && watch->writer.events == 0) {
        if (watch->fd >= 0) {
            reactor_release(reactor, watch->fd);
        }
        LIVE_COUNT(LIVE_FOREIGN_WATCHES, -1);
        free(watch);
        return 0;
    }
    if (watch->fd < 0) {
        return 0;
    }
    return reactor_register(reactor, watch->fd,
                            watch->reader.events | watch->writer.events, ENGINE_EDGE);
}

// 0 if nobody is at [place]; else -1 with BusyError.
static int
check_place(struct foreign_wait *place)
{
    HubObject *hub = place->watch->hub;
    int fd = place->watch->fd;
    if (place->call != NULL) {
        PyErr_Format(hub->state->BusyError, "once() waits for descriptor %d already", fd);
        return -1;
    }
    if (place->waiter == NULL) {
        return 0;
    }
    PyObject *who = task_describe(place->waiter->task);
    if (who != NULL) {
        PyErr_Format(hub->state->BusyError, "%U waits for descriptor %d already", who,
                     fd);
        Py_DECREF(who);
    }
    return -1;
}

static int
raise_engine_error(int fd, int error)
{
    if (error == -EPERM) {
        PyErr_Format(PyExc_ValueError,
                     "descriptor %d is a regular file or a directory, which is always "
                     "ready: use it in a thread, with to_thread()",
                     fd);
    }
    else {
        raise_errno(error);
    }
    return -1;
}

// Waits in [place], one of the watch's two. What was seen, or -1 with an exception.
static int
wait_in_place(HubObject *hub, struct foreign_watch *watch, struct foreign_wait *place,
              int64_t timeout_ns)
{
    int error = update_watch(watch);
    int status = error < 0 ? raise_engine_error(watch->fd, error)
                           : hub_park(hub, &place->waiter, NULL, WAITS_FOR_KERNEL,
                                      timeout_ns, "wait_fd", NULL);
    int seen = (int)place->seen;
    place->events = 0;
    update_watch(watch);
    if (status == WOKEN_CLOSED) {
        raise_os_error(hub->state->ClosedError, EBADF, "the descriptor was closed");
        return -1;
    }
    if (status == WOKEN_TIMEOUT) {
        raise_os_error(PyExc_TimeoutError, ETIMEDOUT, "wait_fd timed out");
        return -1;
    }
    return status < 0 ? -1 : seen;
}

// The place at [fd] for one who asks for [events]; NULL with an exception, also if somebody
// is there.
static struct foreign_wait *
open_place(HubObject *hub, int fd, const struct io_description *description,
           unsigned events)
{
    struct foreign_watch *watch = open_watch(hub, fd, description);
    if (watch == NULL) {
        return NULL;
    }
    struct foreign_wait *place = events == EVENT_WRITE ? &watch->writer : &watch->reader;
    if (check_place(place) < 0) {
        return NULL;
    }
    place->events = events;
    place->seen = 0;
    return place;
}

static int
wait_foreign(HubObject *hub, int fd, const struct io_description *description,
             unsigned events, int64_t timeout_ns)
{
    struct foreign_wait *place = open_place(hub, fd, description, events);
    return place == NULL ? -1 : wait_in_place(hub, place->watch, place, timeout_ns);
}

// What has been received and not read is there to be read, whatever the kernel has.
static int
ready_now(SkConnObject *conn, unsigned events)
{
    if ((events & EVENT_READ) && line_buffer_length(&conn->input) > 0) {
        return EVENT_READ;
    }
    return io_ready_now(conn->fd, events);
}

// On a connection's descriptor: its own waiters, and its own idea of what is ready.
static int
wait_connection(SkConnObject *conn, unsigned events, int64_t timeout_ns)
{
    bool only_writes = events == EVENT_WRITE;
    struct waiter **place = only_writes ? &conn->writer : &conn->reader;
    if (conn_begin(conn, place, only_writes ? "writing" : "reading") < 0) {
        return -1;
    }
    struct reactor *reactor = &conn->hub->reactor;
    uint64_t began_ns = timeout_ns > 0 ? reactor_now_ns(reactor) : 0;
    int64_t left_ns = timeout_ns;
    int ready, error = 0;
    // Edges that have been will not come again, so the kernel is asked first.
    while ((ready = ready_now(conn, events)) == 0 && error == 0) {
        conn->reader_wants_room = !only_writes && (events & EVENT_WRITE) != 0;
        error = conn_wait_within(conn, place, left_ns, "wait_fd");
        if (timeout_ns > 0) {
            // An event that is none of what was asked for does not start it anew.
            int64_t passed_ns = (int64_t)(reactor_now_ns(reactor) - began_ns);
            left_ns = passed_ns < timeout_ns ? timeout_ns - passed_ns : 0;
        }
        if (!only_writes) {
            conn->reader_wants_room = false;
        }
    }
    if (error == 0 && ready < 0) {
        conn_raise(conn, ready); // not reached: poll() takes one descriptor
    }
    return error < 0 || ready < 0 ? -1 : ready;
}

// Describes [fd] and finds the connection that it belongs to, borrowed, or NULL. 0, or -1 with
// an exception.
static int
look_up(HubObject *hub, int fd, struct io_description *description, SkConnObject **conn)
{
    int error = io_describe(fd, description);
    if (error < 0) {
        raise_errno(error);
        return -1;
    }
    *conn = conn_of_target(reactor_owner(&hub->reactor, fd));
    if (*conn != NULL &&
        !hub_is_same_file(hub, fd, (*conn)->device, (*conn)->inode, description)) {
        // Closed behind its back, and the number given out anew.
        conn_detach(*conn);
        *conn = NULL;
    }
    return 0;
}

int
hub_find_conn(HubObject *hub, int fd, SkConnObject **conn)
{
    struct io_description description;
    return look_up(hub, fd, &description, conn);
}

int
hub_wait_fd(HubObject *hub, int fd, unsigned events, int64_t timeout_ns)
{
    struct io_description description;
    SkConnObject *conn;
    if (look_up(hub, fd, &description, &conn) < 0) {
        return -1;
    }
    return conn != NULL ? wait_connection(conn, events, timeout_ns)
                        : wait_foreign(hub, fd, &description, events, timeout_ns);
}

void
hub_notify_closing(HubObject *hub, int fd)
{
    struct ready_target *target = reactor_owner(&hub->reactor, fd);
    if (target != NULL) {
        target->on_lost(target, false);
    }
}

struct foreign_wait *
foreign_enter(HubObject *hub, int fd, unsigned events, struct hub_call *call)
{
    struct io_description description;
    SkConnObject *conn;
    if (look_up(hub, fd, &description, &conn) < 0) {
        return NULL;
    }
    if (conn != NULL) {
        PyErr_Format(
            PyExc_ValueError,
            "descriptor %d belongs to an sk_conn: its set_callbacks() tells when "
            "it is ready",
            fd);
        return NULL;
    }
    struct foreign_wait *place = open_place(hub, fd, &description, events);
    if (place == NULL) {
        return NULL;
    }
    place->call = call;
    hub->kernel_wait_count++;
    int error = update_watch(place->watch);
    if (error < 0) {
        foreign_leave(place);
        raise_engine_error(fd, error);
        return NULL;
    }
    return place;
}

void
foreign_leave(struct foreign_wait *place)
{
    place->call = NULL;
    place->events = 0;
    place->watch->hub->kernel_wait_count--;
    update_watch(place->watch);
}

// Who waits there; a new reference, NULL for nobody.
static PyObject *
place_owner(const struct foreign_wait *place)
{
    if (place->call != NULL) {
        return Py_NewRef((PyObject *)handle_of_call(place->call));
    }
    return place->waiter == NULL ? NULL : Py_NewRef((PyObject *)place->waiter->task);
}

PyObject *
foreign_owner(struct ready_target *target)
{
    if (target->on_ready != take_foreign_event) {
        Py_RETURN_NONE; // not reached: the others are asked before
    }
    struct foreign_watch *watch = CONTAINER_OF(target, struct foreign_watch, target);
    PyObject *reader = place_owner(&watch->reader);
    PyObject *writer = place_owner(&watch->writer);
    if (reader == NULL || writer == NULL) {
        PyObject *one = reader == NULL ? writer : reader;
        return one == NULL ? Py_NewRef(Py_None) : one;
    }
    return Py_BuildValue("(NN)", reader, writer);
}

// --- Module functions --------------------------------------------------------------------

int
check_events(unsigned long asked, unsigned *events)
{
    if (asked == 0 || (asked & ~(unsigned long)WAITABLE_EVENTS) != 0) {
        PyErr_SetString(PyExc_ValueError,
                        "events must be READ, WRITE or PRIORITY, or-ed together");
        return -1;
    }
    *events = (unsigned)asked;
    return 0;
}

int
convert_events(PyObject *number, unsigned *events)
{
    unsigned long asked = PyLong_AsUnsignedLong(number);
    if (asked == (unsigned long)-1 && PyErr_Occurred()) {
        return -1;
    }
    return check_events(asked, events);
}

static PyObject *
wait_with_arguments(PyObject *module, const struct parameters *parameters,
                    PyObject *const *arguments, Py_ssize_t count, PyObject *keyword_names,
                    unsigned events)
{
    PyObject *values[3];
    int64_t timeout_ns;
    if (parse_arguments(parameters, arguments, count, keyword_names, values) < 0) {
        return NULL;
    }
    if (events == 0) {
        if (convert_events(values[1], &events) < 0) {
            return NULL;
        }
        values[1] = values[2];
    }
    int fd = PyObject_AsFileDescriptor(values[0]);
    if (fd < 0 || convert_timeout(values[1], &timeout_ns) < 0) {
        return NULL;
    }
    HubObject *hub = hub_get(module_state_of(module));
    int ready = hub == NULL ? -1 : hub_wait_fd(hub, fd, events, timeout_ns);
    return ready < 0 ? NULL : PyLong_FromLong(ready);
}

PyObject *
wait_fd(PyObject *module, PyObject *const *arguments, Py_ssize_t count,
        PyObject *keyword_names)
{
    static const char *const names[] = {"fd", "events", "timeout", NULL};
    static const struct parameters parameters = {"wait_fd", names, 2, 3};
    return wait_with_arguments(module, &parameters, arguments, count, keyword_names, 0);
}

PyObject *
wait_readable(PyObject *module, PyObject *const *arguments, Py_ssize_t count,
              PyObject *keyword_names)
{
    static const char *const names[] = {"fd", "timeout", NULL};
    static const struct parameters parameters = {"wait_readable", names, 1, 2};
    return wait_with_arguments(module, &parameters, arguments, count, keyword_names,
                               EVENT_READ);
}

PyObject *
wait_writable(PyObject *module, PyObject *const *arguments, Py_ssize_t count,
              PyObject *keyword_names)
{
    static const char *const names[] = {"fd", "timeout", NULL};
    static const struct parameters parameters = {"wait_writable", names, 1, 2};
    return wait_with_arguments(module, &parameters, arguments, count, keyword_names,
                               EVENT_WRITE);
}

PyObject *
wait_notify_closing(PyObject *module, PyObject *file)
{
    int fd = PyObject_AsFileDescriptor(file);
    HubObject *hub = fd < 0 ? NULL : hub_get(module_state_of(module));
    if (hub == NULL) {
        return NULL;
    }
    hub_notify_closing(hub, fd);
    Py_RETURN_NONE;
}
