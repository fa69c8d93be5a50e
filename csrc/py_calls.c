// py_calls.c: what the hub greenlet calls, the most urgent first, and when it stops.
//
// Callbacks come as hub calls, each on the list of its level. A round runs the most urgent
// level that has some; then the engine is looked at, so that what became urgent meanwhile
// overtakes. Invariants:
//   1. A level that has calls runs at the latest after PASS_OVER_LIMIT rounds of others: then
//      it has its turn in the next round as well. So nobody starves.
//   2. What a call queues runs in a later round. The round's own list lies in the hub: what
//      runs may take others off it, and may do so in a greenlet of its own, while our stack
//      is elsewhere.
//   3. What a round that is cut short leaves goes back to the front of its level, in order.
//   4. No round begins between loop_exit() or loop_break() and the return of Hub.run().
//
// Driven by hand, a dispatch has one round.

#include "py_hub.h"

#include "py_convert.h"
#include "py_timer.h"

#define PASS_OVER_LIMIT HARD_OR_USUAL(1, 16)

enum loop_request {
    LOOP_EXIT = 1,     // halt after this round
    LOOP_CONTINUE = 2, // leave the rest of this round for the next
    LOOP_BREAK = 4,    // the same, and halt
};

void
call_queue_init(struct call_queue *queue)
{
    *queue = (struct call_queue){.limited_from = PRIORITY_COUNT, .limit_ns = -1};
    for (int level = 0; level < PRIORITY_COUNT; level++) {
        list_init(&queue->levels[level]);
    }
    list_init(&queue->round);
}

void
hub_set_call_priority(HubObject *hub, struct hub_call *call, enum priority priority)
{
    bool is_due = list_is_linked(&call->link);
    list_remove(&call->link);
    call->priority = (uint8_t)priority;
    if (is_due) {
        hub_queue_call(hub, call);
    }
}

int
convert_priority(PyObject *number, uint8_t *priority)
{
    int value;
    if (convert_int(number, "priority", PRIORITY_NORMAL, &value) < 0) {
        return -1;
    }
    if (value < PRIORITY_HIGH || value > PRIORITY_LOW) {
        PyErr_SetString(PyExc_ValueError, "a priority is HIGH, NORMAL or LOW");
        return -1;
    }
    *priority = (uint8_t)value;
    return 0;
}

bool
hub_has_calls(const HubObject *hub)
{
    const struct call_queue *queue = &hub->calls;
    return !list_is_empty(&queue->levels[PRIORITY_NORMAL]) ||
           !list_is_empty(&queue->levels[PRIORITY_HIGH]) ||
           !list_is_empty(&queue->levels[PRIORITY_LOW]) || !list_is_empty(&queue->round);
}

// --- Rounds -----------------------------------------------------------------------------

// Whether the dispatch interval says to look at the engine, after so many calls.
static bool
has_had_enough(HubObject *hub, Py_ssize_t count, uint64_t began_ns)
{
    const struct call_queue *queue = &hub->calls;
    if (queue->limit_calls > 0 && count >= queue->limit_calls) {
        return true;
    }
    return queue->limit_ns >= 0 &&
           reactor_now_ns(&hub->reactor) - began_ns >= (uint64_t)queue->limit_ns;
}

// Runs the calls of a level; false if the round ends before all have run.
static bool
run_level(HubObject *hub, int level)
{
    struct call_queue *queue = &hub->calls;
    bool is_limited = level >= queue->limited_from;
    uint64_t began_ns =
        is_limited && queue->limit_ns >= 0 ? reactor_now_ns(&hub->reactor) : 0;
    Py_ssize_t count = 0;
    list_move_all(&queue->levels[level], &queue->round);
    struct list_node *node;
    while ((node = list_take_first(&queue->round)) != NULL) {
        struct hub_call *call = CONTAINER_OF(node, struct hub_call, link);
        call->run(call);
        count++;
        if ((queue->requests & (LOOP_CONTINUE | LOOP_BREAK)) != 0 ||
            (is_limited && has_had_enough(hub, count, began_ns))) {
            list_move_all(&queue->levels[level], &queue->round);
            list_move_all(&queue->round, &queue->levels[level]);
            return false;
        }
    }
    return true;
}

static void
run_round(HubObject *hub)
{
    struct call_queue *queue = &hub->calls;
    bool has_run = false;
    for (int level = 0; level < PRIORITY_COUNT; level++) {
        if (has_run && !list_is_empty(&queue->levels[level]) &&
            queue->passed_over[level] < PASS_OVER_LIMIT) {
            queue->passed_over[level]++;
            continue;
        }
        queue->passed_over[level] = 0;
        if (!list_is_empty(&queue->levels[level])) {
            has_run = true;
            if (!run_level(hub, level)) {
                return;
            }
        }
    }
}

// Has Hub.run() return before another round begins.
static void
halt(HubObject *hub)
{
    hub->calls.is_halted = true;
    hub->needs &= ~(unsigned)HUB_NEEDS_CALLS;
    hub_note_end(hub);
}

void
hub_end_halt(HubObject *hub)
{
    hub->calls.is_halted = false;
    if (hub_has_calls(hub)) {
        hub->needs |= HUB_NEEDS_CALLS;
    }
}

void
hub_run_calls(HubObject *hub)
{
    struct call_queue *queue = &hub->calls;
    if (queue->is_halted) {
        return;
    }
    queue->requests = 0;
    run_round(hub);
    if ((queue->requests & (LOOP_EXIT | LOOP_BREAK)) != 0) {
        halt(hub);
    }
    else if (hub->dispatcher != NULL) {
        // What asks to run again may do so in the next dispatch, which has to end some time.
        hub->needs &= ~(unsigned)HUB_NEEDS_CALLS;
    }
    else if (hub_has_calls(hub)) {
        hub->needs |= HUB_NEEDS_CALLS;
        hub->handoffs = HANDOFF_LIMIT; // the engine is looked at before the next round
    }
    if (!list_is_empty(&hub->idle_watchers) && hub_is_idle(hub)) {
        hub_note_end(hub);
    }
}

void
hub_drop_calls(HubObject *hub, bool is_forked)
{
    struct call_queue *queue = &hub->calls;
    for (int level = 0; level < PRIORITY_COUNT; level++) {
        list_move_all(&queue->levels[level], &queue->round);
    }
    struct list_node *node;
    while ((node = list_take_first(&queue->round)) != NULL) {
        struct hub_call *call = CONTAINER_OF(node, struct hub_call, link);
        call->drop(call, is_forked);
    }
}

// --- call_soon --------------------------------------------------------------------------

// A function to be called once.
struct soon_call {
    struct hub_call call;
    HubObject *hub;      // borrowed: it holds the record
    PyObject *function;  // owned
    PyObject *arguments; // owned tuple
};

static void
drop_soon(struct hub_call *call, bool is_forked)
{
    struct soon_call *soon = CONTAINER_OF(call, struct soon_call, call);
    PyObject *function = soon->function;
    PyObject *arguments = soon->arguments;
    (void)is_forked;
    PyMem_Free(soon);
    // Last, for what goes here may run code.
    Py_DECREF(function);
    Py_DECREF(arguments);
}

static void
run_soon(struct hub_call *call)
{
    struct soon_call *soon = CONTAINER_OF(call, struct soon_call, call);
    PyObject *result = PyObject_CallObject(soon->function, soon->arguments);
    if (result == NULL) {
        hub_take_exception(soon->hub, soon->function);
    }
    Py_XDECREF(result);
    drop_soon(call, false);
}

// Has arguments[0] called with the others. 0, or -1 with an exception that names [caller].
static int
add_soon(HubObject *hub, PyObject *const *arguments, Py_ssize_t count, const char *caller)
{
    if (count < 1 || !PyCallable_Check(arguments[0])) {
        PyErr_Format(PyExc_TypeError, "%s() needs something callable first", caller);
        return -1;
    }
    if (hub->is_closed) {
        PyErr_SetString(PyExc_RuntimeError, "this hub is closed");
        return -1;
    }
    PyObject *values = pack_tuple(arguments + 1, count - 1);
    struct soon_call *soon = values == NULL ? NULL : PyMem_Malloc(sizeof(*soon));
    if (soon == NULL) {
        if (values != NULL) {
            PyErr_NoMemory();
        }
        Py_XDECREF(values);
        return -1;
    }
    hub_call_init(&soon->call, run_soon, drop_soon);
    soon->hub = hub;
    soon->function = Py_NewRef(arguments[0]);
    soon->arguments = values;
    hub_queue_call(hub, &soon->call);
    return 0;
}

PyDoc_STRVAR(
    call_soon_doc,
    "call_soon($self, function, /, *args)\n--\n\n"
    "Have the hub call function(*args) in its next turn.\n\n"
    "The function must not wait; it may spawn() a task that does. What it raises is reported\n"
    "through sys.unraisablehook. For the hub's own thread; never switches.");

static PyObject *
Hub_call_soon(HubObject *hub, PyObject *const *arguments, Py_ssize_t count)
{
    if (hub_check_thread(hub, "this hub") < 0 ||
        add_soon(hub, arguments, count, "call_soon") < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    call_soon_threadsafe_doc,
    "call_soon_threadsafe($self, function, /, *args)\n--\n\n"
    "Have the hub call function(*args) in its own thread, soon. For any thread.\n\n"
    "The callback must not wait; it may spawn() a task that does. What it raises is\n"
    "reported through sys.unraisablehook. Raises RuntimeError if the hub is closed. Never\n"
    "switches.");

static PyObject *
Hub_call_soon_threadsafe(HubObject *hub, PyObject *const *arguments, Py_ssize_t count)
{
    if (add_soon(hub, arguments, count, "call_soon_threadsafe") < 0) {
        return NULL;
    }
    if (hub->is_polling) {
        hub->reactor.operations->wake(hub->reactor.engine);
    }
    Py_RETURN_NONE;
}

// --- Ending rounds ----------------------------------------------------------------------

PyDoc_STRVAR(
    set_dispatch_interval_doc,
    "set_dispatch_interval($self, /, seconds=None, calls=None, min_priority=1)\n--\n\n"
    "Have rounds of callbacks look at the engine after so much time or so many calls.\n\n"
    "What was not called yet is called in a later round, in its order; what has become\n"
    "ready meanwhile and is more urgent comes before it. seconds: looked at after each call,\n"
    "so a call that takes longer is not cut short; 0 means after each call. calls: 1 or more.\n"
    "None for both takes the limits off. min_priority: the most urgent level that is limited,\n"
    "NORMAL unless given; HIGH limits all. Raises ValueError for numbers out of range. Never\n"
    "switches.\n\n"
    "Source: libevent's event_config_set_max_dispatch_interval.");

static PyObject *
Hub_set_dispatch_interval(HubObject *hub, PyObject *const *arguments, Py_ssize_t count,
                          PyObject *keyword_names)
{
    static const char *const names[] = {"seconds", "calls", "min_priority", NULL};
    static const struct parameters parameters = {"set_dispatch_interval", names, 0, 3};
    PyObject *values[3];
    int64_t limit_ns;
    Py_ssize_t limit_calls;
    uint8_t limited_from;
    if (parse_arguments(&parameters, arguments, count, keyword_names, values) < 0 ||
        convert_timeout(values[0], &limit_ns) < 0 ||
        convert_size(values[1] == Py_None ? NULL : values[1], "calls", 1, 0,
                     &limit_calls) < 0 ||
        convert_priority(values[2], &limited_from) < 0 ||
        hub_check_thread(hub, "this hub") < 0) {
        return NULL;
    }
    struct call_queue *queue = &hub->calls;
    bool has_limit = limit_ns >= 0 || limit_calls > 0;
    queue->limit_ns = limit_ns;
    queue->limit_calls = limit_calls;
    queue->limited_from = has_limit ? limited_from : (uint8_t)PRIORITY_COUNT;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    loop_exit_doc,
    "loop_exit($self, /, seconds=None)\n--\n\n"
    "Have the run() that is going on return after this round of callbacks.\n\n"
    "seconds: after so much time instead, as call_later() counts it; the TimerHandle that is\n"
    "returned cancels it. Nothing is closed or cancelled, unlike stop(): tasks and\n"
    "connections go on at the next run(), or wait of the main program. From a coroutine, run()\n"
    "returns before another round begins. Does nothing if there is no run(). For the hub's\n"
    "thread; another one uses call_soon_threadsafe(hub.loop_exit). Never switches.\n\n"
    "Source: libevent's event_base_loopexit.");

static PyObject *
Hub_loop_exit(HubObject *hub, PyObject *const *arguments, Py_ssize_t count,
              PyObject *keyword_names)
{
    static const char *const names[] = {"seconds", NULL};
    static const struct parameters parameters = {"loop_exit", names, 0, 1};
    PyObject *seconds;
    if (parse_arguments(&parameters, arguments, count, keyword_names, &seconds) < 0 ||
        hub_check_thread(hub, "this hub") < 0) {
        return NULL;
    }
    if (seconds != NULL && seconds != Py_None) {
        PyObject *later[2] = {seconds, get_attribute((PyObject *)hub, "loop_exit")};
        PyObject *handle = later[1] == NULL ? NULL : Hub_call_later(hub, later, 2);
        Py_XDECREF(later[1]);
        return handle;
    }
    if (hub->is_serving) {
        hub->calls.requests |= hub->is_running ? LOOP_EXIT : 0;
    }
    else if (hub->is_running) {
        halt(hub);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    loop_break_doc,
    "loop_break($self, /)\n--\n\n"
    "Have the run() that is going on return once the running callback has.\n\n"
    "What else is due stays queued, and is called at the next run(), or wait of the main\n"
    "program. All that a connection has to tell at once counts as one callback. Otherwise\n"
    "as loop_exit(). Never switches.\n\n"
    "Source: libevent's event_base_loopbreak.");

static PyObject *
Hub_loop_break(HubObject *hub, PyObject *unused)
{
    (void)unused;
    if (hub_check_thread(hub, "this hub") < 0) {
        return NULL;
    }
    if (hub->is_serving) {
        hub->calls.requests |= hub->is_running ? LOOP_BREAK : 0;
    }
    else if (hub->is_running) {
        halt(hub);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    loop_continue_doc,
    "loop_continue($self, /)\n--\n\n"
    "Have the engine looked at once the running callback has returned.\n\n"
    "The rest of its round waits for the next one, in its order, behind what is more urgent.\n"
    "Does nothing outside of a callback. For the hub's own thread; never switches.\n\n"
    "Source: libevent's event_base_loopcontinue.");

static PyObject *
Hub_loop_continue(HubObject *hub, PyObject *unused)
{
    (void)unused;
    if (hub_check_thread(hub, "this hub") < 0) {
        return NULL;
    }
    if (hub->is_serving) {
        hub->calls.requests |= LOOP_CONTINUE;
    }
    Py_RETURN_NONE;
}

#define FASTCALL(function) ((PyCFunction)(void (*)(void))(function))

PyMethodDef hub_call_methods[] = {
    {"call_soon", FASTCALL(Hub_call_soon), METH_FASTCALL, call_soon_doc},
    {"call_soon_threadsafe", FASTCALL(Hub_call_soon_threadsafe), METH_FASTCALL,
     call_soon_threadsafe_doc},
    {"set_dispatch_interval", FASTCALL(Hub_set_dispatch_interval),
     METH_FASTCALL | METH_KEYWORDS, set_dispatch_interval_doc},
    {"loop_exit", FASTCALL(Hub_loop_exit), METH_FASTCALL | METH_KEYWORDS, loop_exit_doc},
    {"loop_break", (PyCFunction)Hub_loop_break, METH_NOARGS, loop_break_doc},
    {"loop_continue", (PyCFunction)Hub_loop_continue, METH_NOARGS, loop_continue_doc},
    {NULL, NULL, 0, NULL},
};
