// py_turn.c: who runs next.
//
// Hand-off: whoever parks calls hub_pick_next() itself and switches straight to the
// result, so a request costs one switch, or none if the parking greenlet is next itself.
// When nothing is ready it polls the engine there and then. The hub greenlet (the loop)
// only runs callbacks and signal handlers, and starts and ends workers: all workers are
// started from its shallow C stack, so that they overlap with nobody else's.
//
// Driven by hand (Hub.dispatch) nothing polls in place: a parking greenlet hands off
// within the budget of the dispatch, then goes back to the dispatcher.

#include "py_hub.h"

#include <errno.h>
#include <stdlib.h>

#include "greenlet_bridge.h"
#include "py_conn.h"
#include "py_convert.h"
#include "py_hooks.h"
#include "py_task.h"

// Workers ended in one turn: ending one unmaps memory, and many at once stall the loop.
#define TRIM_AT_ONCE HARD_OR_USUAL(1, 16)

// Takes the first ready waiter off its list and gives the greenlet to resume for it.
// NULL without an exception: look again.
static PyObject *
take_ready(HubObject *hub, bool in_loop)
{
    struct waiter *waiter = CONTAINER_OF(hub->ready.next, struct waiter, link);
    if (HARD_MODE && !in_loop && waiter->greenlet == hub->current_greenlet) {
        return hub_loop_greenlet(hub); // nobody goes on without a switch away
    }
    hub->handoffs++;
    if (waiter->kind != WAITS_TO_START) {
        list_remove(&waiter->link);
        return waiter->greenlet;
    }
    TaskObject *task = waiter->task;
    PyObject *greenlet = hub_bind_worker(hub, task, in_loop);
    if (greenlet == NULL && !in_loop) {
        return hub_loop_greenlet(hub);
    }
    list_remove(&waiter->link);
    if (waiter->status != WOKEN_READY) {
        // It had to wait for its time, or was cancelled before.
        list_remove(&waiter->task_link);
        timer_wheel_disarm(&hub->reactor.timers, &waiter->timer);
    }
    waiter->status = WAITER_FREE;
    waiter->task = NULL;
    if (greenlet == NULL) {
        // No memory for one more coroutine: this task fails, the others go on.
        task_finish(task, NULL);
        Py_DECREF(task);
    }
    return greenlet;
}

// Hands the next event to its owner; false if there is none.
static bool
hand_out_event(HubObject *hub, bool *woke)
{
    unsigned ready;
    struct ready_target *target = reactor_take_event(&hub->reactor, &ready);
    if (target == NULL) {
        return false;
    }
    *woke = target->on_ready(target, ready);
    return true;
}

static PyObject *
pick_by_hand(HubObject *hub, bool in_loop)
{
    bool woke;
    for (;;) {
        if (!list_is_empty(&hub->ready) && hub->dispatch_resumes > 0) {
            PyObject *target = take_ready(hub, in_loop);
            if (target != NULL && target == hub->loop) {
                return target; // nothing was taken: the loop has to start a worker
            }
            hub->dispatch_resumes--;
            if (target != NULL || PyErr_Occurred()) {
                return target;
            }
        }
        else if (hub->dispatch_budget > 0 && hand_out_event(hub, &woke)) {
            // Only an event that wakes somebody counts as dispatched.
            hub->dispatch_budget -= woke;
            hub->dispatched += woke;
            hub->dispatch_resumes += woke;
        }
        else {
            return hub->dispatcher;
        }
    }
}

PyObject *
hub_pick_next(HubObject *hub, bool in_loop)
{
    for (;;) {
        // What asks for the loop while it serves waits for its next turn; so callbacks that
        // leave callbacks starve nobody.
        if (!in_loop && hub->needs != 0) {
            return hub_loop_greenlet(hub);
        }
        if (hub->dispatcher != NULL) {
            return pick_by_hand(hub, in_loop);
        }
        if (list_is_empty(&hub->ready)) {
            if (hub_poll(hub, -1) < 0) {
                return NULL;
            }
            if (in_loop && hub->needs != 0) {
                return hub->loop;
            }
        }
        else if (hub->handoffs >= HANDOFF_LIMIT) {
            if (hub_poll(hub, 0) < 0) {
                // not reached: the engine does not fail
                return NULL;
            }
        }
        else {
            PyObject *target = take_ready(hub, in_loop);
            if (target != NULL || PyErr_Occurred()) {
                return target;
            }
        }
    }
}

// Threads that are neither this one nor idle ones of our own pool.
static bool
other_threads_are_alive(HubObject *hub)
{
    long count = 0;
    PyThreadState *thread = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
    for (; thread != NULL; thread = PyThreadState_Next(thread)) {
        count++;
    }
    return count > 1 + hub->state->idle_thread_count;
}

static bool
nothing_can_wake(HubObject *hub)
{
    return hub->kernel_wait_count == 0 && hub->reactor.timers.armed_count == 0 &&
           !other_threads_are_alive(hub) && !signals_may_wake(hub) &&
           !conn_has_any_output(hub); // dealloc functions are called when it has left
}

// Everybody waits and nothing is left to wake them: the main program has to know.
static int
raise_deadlock(HubObject *hub)
{
    PyObject *waits = hub_explain_waits(hub);
    if (waits == NULL) {
        return -1;
    }
    PyObject *exception = PyObject_CallObject(hub->state->DeadlockError, waits);
    Py_DECREF(waits);
    if (exception == NULL) {
        return -1;
    }
    hub_interrupt_main(hub, exception);
    if (!list_is_empty(&hub->ready)) {
        return 0;
    }
    // The main program does not wait in the hub (it switched to a greenlet of its own):
    // then whoever waits here gets it.
    // not reached: the main program is in a greenlet of its own
    return hub_raise_main_exception(hub);
}

// Fetches events; waits with the GIL given up if it may have to wait at all.
static int
fetch_events(HubObject *hub, int64_t timeout_ns)
{
    // Under load there are events already, and looking first spares handing the GIL over.
    bool looks_first = timeout_ns == 0 || hub->had_many_events;
    int count = looks_first ? reactor_poll(&hub->reactor, 0) : 0;
    if (count == 0 && timeout_ns != 0) {
        hub->is_polling = true;
        Py_BEGIN_ALLOW_THREADS
        count = reactor_poll(&hub->reactor, timeout_ns);
        Py_END_ALLOW_THREADS
        hub->is_polling = false;
    }
    hub->had_many_events = count > 1;
    if (count == -EINTR) {
        hub->needs |= HUB_NEEDS_SIGNALS;
    }
    else if (count < 0) {
        raise_errno(count);
        return -1;
    }
    reactor_settle(&hub->reactor);
    return 0;
}

// Sends what is left to send and says how long the engine may wait then.
static int64_t
prepare_wait(HubObject *hub, int64_t limit_ns)
{
    list_move_all(&hub->unfinished, &hub->dirty);
    hub_flush_output(hub);
    if (!list_is_empty(&hub->ready) || !list_is_empty(&hub->unfinished) ||
        hub->needs != 0) {
        limit_ns = 0;
    }
    return reactor_wait_limit(&hub->reactor, limit_ns);
}

int
hub_fetch(HubObject *hub, int64_t limit_ns, bool is_by_hand)
{
    hub->handoffs = 0;
    hub->turn_time_ns = 0;
    hub->wait_time_ns = 0;
    hub->turn_count++;
    if (hub->is_closed) {
        PyErr_SetString(PyExc_RuntimeError, "this hub is closed");
        return -1;
    }
    if (hub_take_signals(hub) < 0) {
        return -1;
    }
    // By hand it is the main program that waits, so what is due runs at once and ends no wait.
    if (is_by_hand && hub_run_signal_handlers(hub) < 0) {
        return -1;
    }
    if (HARD_MODE && is_by_hand) {
        hub->reactor.echo.count = 0; // it counts the events that there are
    }
    int64_t timeout_ns = prepare_wait(hub, limit_ns);
    if (hub_has_hooks(hub)) {
        hooks_prepare(hub, timeout_ns);
        // They may have written something, woken somebody, or interrupted the main program.
        timeout_ns = prepare_wait(hub, hub->main_exception == NULL ? limit_ns : 0);
    }
    if (timeout_ns < 0 && !is_by_hand && nothing_can_wake(hub)) {
        // Looking for signal handlers may have run one.
        if (list_is_empty(&hub->ready) && hub->needs == 0) {
            return raise_deadlock(hub);
        }
        timeout_ns = 0; // not reached: a handler that a signal has just run
    }
    if (fetch_events(hub, timeout_ns) < 0) {
        return -1;
    }
    if (hub_has_hooks(hub)) {
        hooks_check(hub);
    }
    hub_note_cpu(hub, NULL);
    return 0;
}

void
hub_run_due_timers(HubObject *hub)
{
    struct timer *timer;
    while ((timer = reactor_take_due(&hub->reactor)) != NULL) {
        timer->on_due(timer);
    }
}

int
hub_poll(HubObject *hub, int64_t limit_ns)
{
    if (hub_fetch(hub, limit_ns, false) < 0) {
        return -1;
    }
    bool woke;
    while (hand_out_event(hub, &woke)) {
    }
    // After the events: what is ready and due in one turn was ready in time.
    hub_run_due_timers(hub);
    return 0;
}

// Leaves the exception that is set to the main program if it is one that ends programs,
// and reports it otherwise.
static void
take_loop_exception(HubObject *hub)
{
    if (PyErr_ExceptionMatches(PyExc_Exception)) {
        report_exception((PyObject *)hub);
    }
    else {
        // not reached: a greenlet of the user's below the loop
        hub_interrupt_main(hub, take_exception());
    }
}

void
hub_take_exception(HubObject *hub, PyObject *subject)
{
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) ||
        PyErr_ExceptionMatches(PyExc_SystemExit)) {
        hub_interrupt_main(hub, take_exception());
    }
    else {
        report_exception(subject);
    }
}

static void
serve_needs(HubObject *hub)
{
    unsigned needs = hub->needs;
    hub->needs = 0;
    if (needs & HUB_NEEDS_SIGNALS && PyErr_CheckSignals() < 0) {
        // A signal handler belongs to the main program, and so does what it raises.
        hub_interrupt_main(hub, take_exception());
    }
    hub->is_serving = true;
    if (needs & HUB_NEEDS_CALLS) {
        hub_run_calls(hub);
    }
    hub->is_serving = false;
    if (needs & HUB_NEEDS_TRIM) {
        hub_trim_workers(hub, TRIM_AT_ONCE);
    }
    if (needs & HUB_NEEDS_WATCHERS) {
        hub_start_watchers(hub);
    }
    hub_note_cpu(hub, NULL);
}

// A switch of the loop's came back with an exception: a worker could not be started, or
// a greenlet of the user's that has the loop as its parent died of it.
static void
handle_failed_switch(HubObject *hub, PyObject *target)
{
    struct worker *worker = hub->starting;
    if (worker == NULL || worker->greenlet != target) {
        take_loop_exception(hub);
        return;
    }
    TaskObject *task = worker->task; // not reached: greenlet can start each worker
    hub->starting = NULL;
    LIVE_COUNT(LIVE_WORKERS, -1);
    free(worker);
    task_finish(task, NULL);
    Py_DECREF(task);
    Py_DECREF(target);
}

// The engine failed. If the main program waits it gets the exception, and 0 comes back: the
// loop has to go on, for it is the parent of the workers, who return to it when they end.
// Otherwise -1 with the exception.
static int
give_failure_to_main(HubObject *hub)
{
    hub_interrupt_main(hub, take_exception());
    return list_is_empty(&hub->ready) ? hub_raise_main_exception(hub) : 0;
}

PyObject *
hub_loop_main(PyObject *self, PyObject *unused)
{
    HubObject *hub = (HubObject *)self;
    (void)unused;
    // Before the first coroutine runs, so that no SIGINT is ever raised in one.
    if (hub_take_signals(hub) < 0) {
        Py_CLEAR(hub->loop);
        return NULL;
    }
    hub->current_greenlet = hub->loop;
    hub->current_task = NULL;
    for (;;) {
        if (hub->needs != 0) {
            serve_needs(hub);
        }
        PyObject *target = hub_pick_next(hub, true);
        if (target == NULL) {
            if (give_failure_to_main(hub) == 0) {
                continue;
            }
            // The exception surfaces in the parent, the main program; the next wait makes a
            // new loop.
            // not reached: the main program is in a greenlet of its own
            hub->current_greenlet = NULL;
            Py_CLEAR(hub->loop);
            return NULL;
        }
        if (target == hub->loop) {
            continue;
        }
        if (hub_switch(hub, target, hub->loop, NULL) < 0) {
            if (PyErr_ExceptionMatches(greenlet_exit_exception())) {
                return NULL; // the hub is going away
            }
            handle_failed_switch(hub, target);
        }
    }
}
