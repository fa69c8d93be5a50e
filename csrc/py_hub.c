// py_hub.c: the life of a hub: one a thread, made at the first call that needs it.
//
// A hub is owned by its thread's state dictionary, under a capsule whose destructor
// closes it when the thread ends, and found through a thread-local pointer. The main
// thread's hub is closed by an atexit function, for at interpreter exit greenlets can no
// longer be switched and their finally blocks would not run.

#include "py_hub.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "greenlet_bridge.h"
#include "py_callbacks.h"
#include "py_conn.h"
#include "py_convert.h"
#include "py_guest.h"
#include "py_handle.h"
#include "py_task.h"

// How long closing connections may take to send what they hold when the hub closes.
#define CLOSE_DRAIN_NS INT64_C(5000000000)

// An engine that fails at each wait will not get better; each failure is reported.
#define MAX_CLOSE_FAILURES 16

#define OWNER_KEY "pycoronet.hub"

static _Thread_local HubObject *thread_hub; // borrowed from the thread's dictionary

// --- Engines ------------------------------------------------------------------------------

// The names of what this build has, the best first: "epoll, fake".
static PyObject *
list_engines(void)
{
    PyObject *list = PyUnicode_FromString("");
    for (size_t i = 0; list != NULL && engine_at(i) != NULL; i++) {
        Py_SETREF(list, PyUnicode_FromFormat("%U%s%s", list, i == 0 ? "" : ", ",
                                             engine_at(i)->name));
    }
    return list;
}

// Looks a name up that was given as [source].
static const struct engine_operations *
find_engine(PyObject *name, const char *source)
{
    if (!PyUnicode_Check(name)) {
        PyErr_Format(PyExc_TypeError, "%s must be a str or None, not %.100s", source,
                     Py_TYPE(name)->tp_name);
        return NULL;
    }
    // Compared from this side no character is special, be it NUL or half a pair.
    for (size_t i = 0; engine_at(i) != NULL; i++) {
        if (PyUnicode_CompareWithASCIIString(name, engine_at(i)->name) == 0) {
            return engine_at(i);
        }
    }
    PyObject *list = list_engines();
    if (list != NULL) {
        PyErr_Format(PyExc_ValueError, "there is no engine %R here; %s may be: %U", name,
                     source, list);
        Py_DECREF(list);
    }
    return NULL;
}

// The engine of who names none: that of the environment, or else the best.
static const struct engine_operations *
choose_engine(void)
{
    const char *text = getenv("PYCORONET_ENGINE");
    if (text == NULL || text[0] == '\0') {
        const struct engine_operations *best = engine_find(NULL);
        if (best == NULL) {
            PyErr_SetString(PyExc_RuntimeError, // not reached: Linux has one
                            "this build of pycoronet has no engine for this system");
        }
        return best;
    }
    PyObject *name = PyUnicode_DecodeFSDefault(text);
    const struct engine_operations *operations =
        name == NULL ? NULL : find_engine(name, "PYCORONET_ENGINE");
    Py_XDECREF(name);
    return operations;
}

// --- Finding and making -----------------------------------------------------------------

HubObject *
hub_peek(void)
{
    return thread_hub;
}

// Python runs signal handlers in one thread only. 1 or 0, or -1 with an exception.
static int
is_main_thread(void)
{
    PyObject *module = PyImport_ImportModule("threading");
    PyObject *find = module == NULL ? NULL : get_attribute(module, "main_thread");
    PyObject *thread = find == NULL ? NULL : PyObject_CallNoArgs(find);
    PyObject *number = thread == NULL ? NULL : get_attribute(thread, "ident");
    int is_main = number != NULL && PyLong_Check(number) &&
                  PyLong_AsUnsignedLong(number) == PyThread_get_thread_ident();
    Py_XDECREF(module);
    Py_XDECREF(find);
    Py_XDECREF(thread);
    Py_XDECREF(number);
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_ImportError) &&
        !PyErr_ExceptionMatches(PyExc_AttributeError) &&
        !PyErr_ExceptionMatches(PyExc_TypeError)) {
        return -1; // no memory, or what a signal handler has raised
    }
    PyErr_Clear(); // there is no such module any more
    return is_main;
}

static int
set_up_greenlets(HubObject *hub)
{
    static PyMethodDef worker_method = {"run_tasks", worker_main, METH_NOARGS,
                                        "Runs one task after the other."};
    PyObject *root = greenlet_current();
    while (root != NULL) {
        PyObject *parent = greenlet_parent(root);
        if (parent == NULL) {
            break;
        }
        Py_SETREF(root, parent);
    }
    hub->root = root;
    hub->worker_run = PyCFunction_New(&worker_method, (PyObject *)hub);
    hub->main_task = task_new_main(hub);
    if (hub->main_task != NULL) {
        hub->main_task->greenlet = root;
    }
    return root == NULL || hub->worker_run == NULL || hub->main_task == NULL ? -1 : 0;
}

static HubObject *
hub_new(struct module_state *state, const struct engine_operations *operations)
{
    int is_main = is_main_thread();
    if (is_main < 0) {
        return NULL;
    }
    HubObject *hub = (HubObject *)state->hub_type->tp_alloc(state->hub_type, 0);
    if (hub == NULL) {
        return NULL;
    }
    LIVE_COUNT(LIVE_HUBS, 1);
    hub->is_closed = true; // until it can be closed
    hub->state = state;
    hub->thread_id = PyThread_get_thread_ident();
    hub->is_main_thread = is_main == 1;
    hub->signal_pipe[0] = hub->signal_pipe[1] = hub->chained_wakeup_fd = -1;
    list_init(&hub->ready);
    list_init(&hub->tasks);
    list_init(&hub->dirty);
    list_init(&hub->unfinished);
    list_init(&hub->connections);
    list_init(&hub->draining);
    list_init(&hub->idle);
    list_init(&hub->idle_watchers);
    list_init(&hub->parking_lots);
    call_queue_init(&hub->calls);
    list_init(&hub->handles);
    list_init(&hub->hooks);
    list_init(&hub->guests);
    hub->scratch = malloc(HUB_SCRATCH_SIZE + HUB_FRESH_SIZE);
    if (hub->scratch == NULL) {
        PyErr_NoMemory();
        goto fail;
    }
    int error = reactor_open(&hub->reactor, operations);
    if (error < 0) {
        raise_errno(error);
        goto fail;
    }
    hub->is_closed = false;
    if (hub_open_signal_pipe(hub) < 0 || set_up_greenlets(hub) < 0) {
        hub_abandon(hub); // what there is of its greenlets refers to it
        goto fail;
    }
    list_append(&state->open_hubs, &hub->state_link);
    // Not at once: a process that forks and then runs another program has no use for it.
    hub->needs |= hub_wanted_watchers(hub);
    return hub;
fail:
    Py_DECREF(hub);
    return NULL;
}

// The thread ends: its dictionary lets go of the hub.
static void
release_thread_hub(PyObject *capsule)
{
    HubObject *hub = PyCapsule_GetPointer(capsule, OWNER_KEY);
    if (hub->thread_id == PyThread_get_thread_ident()) {
        thread_hub = NULL;
        hub_abandon(hub);
    }
    Py_DECREF(hub);
}

// Makes a hub the calling thread's.
static HubObject *
install_hub(struct module_state *state, const struct engine_operations *operations)
{
    PyObject *dictionary = PyThreadState_GetDict();
    if (dictionary == NULL) {
        PyErr_NoMemory(); // what it makes of that is no exception
        return NULL;
    }
    HubObject *hub = hub_new(state, operations);
    if (hub == NULL) {
        return NULL;
    }
    PyObject *capsule = PyCapsule_New(hub, OWNER_KEY, release_thread_hub);
    if (capsule == NULL) {
        hub_abandon(hub);
        Py_DECREF(hub);
        return NULL;
    }
    // The capsule owns the hub from here on; setting it ends a hub that was there.
    int error = PyDict_SetItemString(dictionary, OWNER_KEY, capsule);
    if (error == 0) {
        thread_hub = hub;
    }
    Py_DECREF(capsule);
    return error < 0 ? NULL : hub;
}

void
hub_uninstall(HubObject *hub)
{
    if (hub != thread_hub) {
        return;
    }
    thread_hub = NULL;
    PyObject *dictionary = PyThreadState_GetDict();
    if (dictionary != NULL && PyDict_DelItemString(dictionary, OWNER_KEY) < 0) {
        // not reached: somebody else emptied the dictionary
        PyErr_Clear();
    }
}

HubObject *
hub_get(struct module_state *state)
{
    if (thread_hub != NULL) {
        return thread_hub;
    }
    const struct engine_operations *operations = choose_engine();
    return operations == NULL ? NULL : install_hub(state, operations);
}

HubObject *
hub_get_with_engine(struct module_state *state, PyObject *backend)
{
    const struct engine_operations *operations = find_engine(backend, "backend");
    if (operations == NULL) {
        return NULL;
    }
    if (thread_hub == NULL) {
        return install_hub(state, operations);
    }
    const char *present = thread_hub->reactor.operations->name;
    if (strcmp(present, operations->name) != 0) {
        PyErr_Format(
            PyExc_RuntimeError,
            "this thread has a hub with the engine '%s'; close() that one before "
            "you ask for one with '%s'",
            present, operations->name);
        return NULL;
    }
    return thread_hub;
}

int
hub_check_thread(HubObject *hub, const char *what)
{
    if (hub->thread_id == PyThread_get_thread_ident()) {
        return 0;
    }
    PyErr_Format(
        PyExc_RuntimeError,
        "%s belongs to another thread; use Hub.call_soon_threadsafe() of its hub", what);
    return -1;
}

PyObject *
hub_loop_greenlet(HubObject *hub)
{
    static PyMethodDef loop_method = {"run_hub", hub_loop_main, METH_NOARGS,
                                      "The hub's own greenlet."};
    if (hub->loop == NULL) {
        PyObject *run = PyCFunction_New(&loop_method, (PyObject *)hub);
        if (run == NULL) {
            return NULL;
        }
        hub->loop = greenlet_new(run, hub->root);
        Py_DECREF(run);
    }
    return hub->loop;
}

// The task that this very greenlet runs; not what is nested in it.
static TaskObject *
task_run_by(HubObject *hub, PyObject *greenlet)
{
    if (greenlet == hub->root) {
        return hub->main_task;
    }
    // Nearly always it is the family of whom the hub resumed last.
    TaskObject *task = hub->current_task;
    if (task != NULL && task->greenlet == greenlet) {
        return task;
    }
    for (struct list_node *node = hub->tasks.next; node != &hub->tasks;
         node = node->next) {
        task = CONTAINER_OF(node, TaskObject, hub_link);
        if (task->greenlet == greenlet) {
            return task;
        }
    }
    return NULL;
}

TaskObject *
hub_search_task(HubObject *hub, PyObject *greenlet)
{
    while (greenlet != NULL && greenlet != hub->loop) {
        TaskObject *task = task_run_by(hub, greenlet);
        if (task != NULL) {
            return task;
        }
        // A greenlet of the user's own: it belongs to the task it was nested in. Its
        // parent is alive as long as itself.
        greenlet = greenlet_parent(greenlet);
        Py_XDECREF(greenlet);
    }
    return NULL;
}

int
hub_running_task(HubObject *hub, TaskObject **task)
{
    PyObject *me = greenlet_current();
    if (me == NULL) {
        return -1;
    }
    *task = hub_task_of(hub, me);
    Py_DECREF(me);
    return 0;
}

bool
hub_is_main_program(HubObject *hub)
{
    PyObject *me = greenlet_current();
    if (me == NULL) {
        PyErr_Clear();
        return false;
    }
    Py_DECREF(me);
    return me == hub->root && hub->dispatcher == NULL && hub->layer_depth == 0;
}

// --- The main program's exceptions ------------------------------------------------------

struct waiter *
task_own_wait(TaskObject *task)
{
    struct list_node *head = &task->waiters;
    for (struct list_node *node = head->next; node != head; node = node->next) {
        struct waiter *waiter = CONTAINER_OF(node, struct waiter, task_link);
        if (waiter->greenlet == task->greenlet) {
            return waiter;
        }
    }
    return NULL;
}

void
hub_interrupt_main(HubObject *hub, PyObject *exception)
{
    if (hub->main_exception != NULL) {
        restore_exception(exception);
        report_exception((PyObject *)hub);
        return;
    }
    hub->main_exception = exception;
    TaskObject *task = hub_main_task(hub);
    if (task == NULL) {
        return; // not reached: the hub is closed, and nobody waits in it
    }
    struct waiter *waiter = task_own_wait(task);
    if (waiter == NULL && !list_is_empty(&task->waiters)) {
        // It waits in a greenlet of its own making.
        waiter = CONTAINER_OF(task->waiters.previous, struct waiter, task_link);
    }
    if (waiter != NULL) {
        waiter_wake(hub, waiter, WOKEN_INTERRUPTED);
    }
}

TaskObject *
hub_main_task(HubObject *hub)
{
    return hub->orphan == NULL ? hub->main_task : hub->orphan;
}

int
hub_raise_main_exception(HubObject *hub)
{
    PyObject *exception = hub->main_exception;
    if (exception == NULL) {
        return 0;
    }
    hub->main_exception = NULL;
    restore_exception(exception);
    return -1;
}

// --- Closing ----------------------------------------------------------------------------------

static void
cancel_all_tasks(HubObject *hub)
{
    for (struct list_node *node = hub->tasks.next; node != &hub->tasks;
         node = node->next) {
        // Marks and wakes, but runs nothing: the list stays as it is.
        task_cancel(CONTAINER_OF(node, TaskObject, hub_link), NULL);
    }
}

int
hub_wait_for_end(HubObject *hub, int64_t timeout_ns)
{
    // A task whose greenlet was left by foreign code and dropped ends when the loop, which
    // may be suspended in the switch to it, goes on.
    hub->needs |= HUB_NEEDS_TRIM;
    return hub_park(hub, NULL, &hub->idle_watchers, WAITS_FOR_OTHERS, timeout_ns, "run",
                    NULL);
}

void
hub_note_end(HubObject *hub)
{
    struct list_node *node;
    while ((node = list_take_first(&hub->idle_watchers)) != NULL) {
        waiter_wake(hub, CONTAINER_OF(node, struct waiter, link), WOKEN_READY);
    }
}

bool
hub_is_idle(HubObject *hub)
{
    return hub->task_count == 0 && hub->callback_count == 0 && hub->handle_count == 0 &&
           !hub_has_calls(hub);
}

// Cancels the tasks and lets their finally blocks run, then sends what connections still
// hold, closed or not. Both within the time for closing.
static void
wind_down(HubObject *hub)
{
    uint64_t deadline_ns = reactor_now_ns(&hub->reactor) + (uint64_t)CLOSE_DRAIN_NS;
    int failure_count = 0;
    handles_end_all(hub);
    callbacks_shut_down(hub);
    guests_announce_close(hub);
    for (;;) {
        int64_t left_ns = (int64_t)(deadline_ns - reactor_now_ns(&hub->reactor));
        bool has_others = hub->task_count > 0 || hub->callback_count > 0 ||
                          !list_is_empty(&hub->guests);
        if (left_ns <= 0 || (!has_others && !conn_has_any_output(hub))) {
            return;
        }
        cancel_all_tasks(hub);
        int status;
        if (has_others) {
            status = hub_wait_for_end(hub, left_ns);
        }
        else {
            // Polling here serves no callbacks and signals; the loop does.
            status = hub->needs != 0 ? hub_yield(hub, "close") : hub_poll(hub, left_ns);
        }
        if (status < 0) {
            report_exception((PyObject *)hub);
            if (++failure_count == MAX_CLOSE_FAILURES) {
                return;
            }
        }
    }
}

// Every connection with callbacks hears that it is closed, also those whose time was over.
static void
tell_the_rest(HubObject *hub)
{
    handles_end_all(hub);
    while (hub->callback_count > 0) {
        callbacks_abort_all(hub);
        if (hub_yield(hub, "close") < 0) {
            report_exception((PyObject *)hub); // not reached: wind_down() has it all
        }
    }
}

int
hub_close(HubObject *hub)
{
    if (hub->is_closed) {
        return 0;
    }
    if (hub_check_thread(hub, "this hub") < 0) {
        return -1;
    }
    if (!hub_is_main_program(hub)) {
        PyErr_SetString(PyExc_RuntimeError, "only the main program can close a hub");
        return -1;
    }
    hub->is_closing = true;
    wind_down(hub);
    tell_the_rest(hub);
    // Idle workers end one after the other in the loop, while it runs for the last time.
    while (hub->idle_count > 0) {
        hub->needs |= HUB_NEEDS_TRIM;
        if (hub_yield(hub, "close") < 0) {
            report_exception((PyObject *)hub); // not reached: wind_down() has it all
        }
    }
    hub_end_stall_watch(hub, true);
    hub_abandon(hub);
    return 0;
}

// Ends one of the hub's own greenlets, stolen. To drop it would not do: those who are
// suspended in a switch to it hold it, in circles.
static void
end_greenlet(PyObject *greenlet)
{
    PyObject *pending = take_exception();
    if (greenlet_end(greenlet) < 0) {
        PyErr_Clear(); // it goes with its thread
    }
    Py_DECREF(greenlet);
    restore_exception(pending);
}

void
hub_abandon(HubObject *hub)
{
    if (hub->is_closed) {
        return;
    }
    hub->is_closed = true;
    list_remove(&hub->state_link);
    parking_lots_end(hub);
    hub_end_stall_watch(hub, false);
    handles_end_all(hub); // first: a handler of SIGINT gives it back to the hub
    guests_end_all(hub);
    hub_give_signals_back(hub);
    conn_forget_all(hub);
    hub_drop_calls(hub, false);
    hub_stop_timers(hub);
    reactor_close(&hub->reactor);
    // Of a thread that ends; an idle worker holds nothing.
    struct list_node *node;
    while ((node = list_take_first(&hub->idle)) != NULL) {
        hub->idle_count--;
        end_greenlet(CONTAINER_OF(node, struct worker, idle_link)->greenlet);
    }
    // The loop holds the hub through its function; without it the hub can go.
    PyObject *loop = hub->loop;
    hub->loop = NULL;
    if (loop != NULL) {
        end_greenlet(loop);
    }
    Py_CLEAR(hub->worker_run);
    Py_CLEAR(hub->main_task);
    Py_CLEAR(hub->main_exception);
    local_owner_free(&hub->locals);
}
