// py_hub.h: the hub, one a thread, and how a greenlet waits in it.
//
// Layer 3's centre. py_hub.c makes and ends hubs, py_hub_type.c has the methods users
// call; py_turn.c decides who runs next; py_waiter.c parks and wakes; py_worker.c runs tasks
// in pooled greenlets; py_signals.c and py_fork.c deal with what their names say.

#ifndef CORONET_PY_HUB_H
#define CORONET_PY_HUB_H

#include "py_state.h"

#include "hard_mode.h"
#include "list.h"
#include "py_local.h"
#include "reactor.h"

typedef struct TaskObject TaskObject;
typedef struct HubObject HubObject;
typedef struct SkConnObject SkConnObject;

enum waiter_status {
    WAITER_FREE,       // nobody waits
    WAITER_HELD,       // taken by a greenlet that does not wait yet, or no more
    WAITER_PARKED,     // waiting; every other status below is a reason to wake
    WOKEN_READY,       // what was waited for has come
    WOKEN_TIMEOUT,     // the waiter's own timer came first
    WOKEN_CLOSED,      // the connection or descriptor was closed
    WOKEN_CANCELLED,   // the task was cancelled, or a scope's deadline passed
    WOKEN_INTERRUPTED, // the main program has an exception to raise
};

enum waiter_kind {
    WAITS_FOR_OTHERS, // a task, a lock ...: only this hub's tasks can wake it
    WAITS_FOR_TIME,   // nothing but its timer (or a cancel) wakes it
    WAITS_FOR_KERNEL, // a descriptor or another thread can wake it
    WAITS_FOR_TURN,   // ready at once; lets the others go first
    WAITS_TO_START,   // the record of a task that has not begun
    WAITS_FOR_CALLEE, // in co_call: the coroutine entered goes on at once
};

// One greenlet's wait. It lies in the task, or on the heap if another greenlet of the task
// waits in that one; never on the C stack: greenlet moves stacks to the heap and reuses
// their addresses. It records the greenlet that parked, which need not be the task's own
// worker, for libraries nest greenlets of their own in a task.
struct waiter {
    PyObject *greenlet;         // owned from held on; NULL while free
    TaskObject *task;           // owned likewise; whose wait this is
    struct list_node link;      // on the queue of what is waited for, if that has one;
                                // once woken, on hub->ready
    struct list_node task_link; // on task->waiters while parked
    struct timer timer;         // the wait's own deadline
    uint64_t since_ns;          // for reports: when it began, of hub_wait_time()
    const char *operation;      // for reports: "readln", "join" ...
    PyObject *subject;          // for reports, borrowed: what is waited for, or NULL
    uint8_t status;             // enum waiter_status
    uint8_t kind;               // enum waiter_kind
    bool is_allocated;          // it lies on the heap
    bool is_cancelled;          // a cancel was due when the wait began
};

// A pooled greenlet that runs one task after the other.
struct worker {
    PyObject *greenlet;         // owned while it is idle; else borrowed from who runs it
    TaskObject *task;           // owned; the task bound to it, NULL while idle
    struct list_node idle_link; // on hub->idle
    bool must_end;              // leave the worker loop at the next resumption
};

// Anything that owns a watched descriptor begins with this.
struct ready_target {
    // Takes an event. Returns true if it woke a waiter.
    bool (*on_ready)(struct ready_target *target, unsigned ready);
    // Tells that the engine forgot the registration (fork), or that the number now
    // belongs to another file.
    void (*on_lost)(struct ready_target *target, bool is_forked);
};

// How urgent a callback is: the hub runs the most urgent that are due, then polls.
enum priority { PRIORITY_HIGH, PRIORITY_NORMAL, PRIORITY_LOW, PRIORITY_COUNT };

// Something to be done by the hub greenlet, in no coroutine's context: a callback.
struct hub_call {
    struct list_node link; // on a level of hub->calls, or on its round, while it is due
    uint8_t priority;      // enum priority
    void (*run)(struct hub_call *call); // leaves no exception behind
    // It will not be run: the hub is closed, or with [is_forked] the call is the parent's.
    void (*drop)(struct hub_call *call, bool is_forked);
};

enum hub_needs {
    HUB_NEEDS_SIGNALS = 1,  // Python's signal handlers have to run
    HUB_NEEDS_TRIM = 2,     // too many workers are idle
    HUB_NEEDS_CALLS = 4,    // hub->calls is not empty
    HUB_NEEDS_WATCHERS = 8, // the threads that look at the hub have to be started
};

// The calls that are due. A round runs those of one level; see py_calls.c.
struct call_queue {
    struct list_node levels[PRIORITY_COUNT]; // for the next rounds
    struct list_node round;                  // what is left of the one that is going on
    unsigned passed_over[PRIORITY_COUNT];    // rounds in a row that did not run the level
    unsigned requests;      // enum loop_request, of the calls of this round
    bool is_halted;         // no round begins before Hub.run() has returned
    uint8_t limited_from;   // the most urgent level whose rounds are cut short
    int64_t limit_ns;       // after so much time, -1 = none
    Py_ssize_t limit_calls; // or so many calls, 0 = none
};

struct HubObject {
    PyObject_HEAD
    struct module_state *state; // borrowed; the type holds the module
    PyObject *weak_references;
    struct list_node state_link; // on state->open_hubs while it is not closed
    unsigned long thread_id;
    bool is_main_thread;
    bool is_closed;
    bool is_closing;      // shutting down: no cancel reaches the main program
    bool has_signals;     // SIGINT and the wake-up descriptor are taken over
    bool had_many_events; // the last poll brought more than one
    bool is_polling;      // inside a wait that gave the GIL up: others must wake it
    bool is_serving;  // callbacks run: nobody may wait, and what is written is collected
    bool is_in_hook;  // a hook runs: nobody may wait
    bool is_in_guest; // a guest's step runs, likewise
    bool is_stopping; // stop() was called: Hub.run() is to return
    bool is_running;  // the main program is in Hub.run(), which has not been stopped

    struct reactor reactor;
    struct list_node ready;       // waiters woken, and tasks to start, in order
    struct list_node tasks;       // every task that was started and has not ended
    struct list_node dirty;       // connections with coalesced output to send
    struct list_node unfinished;  // those that have sent enough for this turn
    struct list_node connections; // every connection that has an fd
    struct list_node draining;    // closed connections that still send
    size_t task_count;
    size_t idle_count;
    size_t kernel_wait_count; // waiters of WAITS_FOR_KERNEL that are parked
    struct list_node idle;    // idle workers; owns their greenlets
    struct call_queue calls;  // what the hub greenlet has to call
    struct list_node handles; // functions to be called some time (py_handle.h), owned
    size_t handle_count;      // how many those are
    struct list_node hooks;   // HookHandles, owned (py_hooks.h)
    struct list_node guests;  // other loops that live in this one, owned (py_guest.h)
    uint64_t hook_round;      // counts the rounds of their calls
    size_t callback_count;    // connections with callbacks
    uint64_t turn_time_ns;    // what cached_time is since the last poll; 0 = not read
    uint64_t wait_time_ns;    // when somebody first waited since then; 0 = nobody has

    PyObject *root;             // owned; the thread's main greenlet
    PyObject *loop;             // owned; the hub greenlet, NULL until it is needed
    PyObject *worker_run;       // owned; what worker greenlets run
    TaskObject *main_task;      // owned; stands for the main program
    TaskObject *orphan;         // borrowed; in a child forked by a coroutine: that one,
                                // whose end is the end of the process; else NULL
    PyObject *current_greenlet; // borrowed; whom the hub resumed last, if it is a worker,
                                // the root or the loop; else NULL
    TaskObject *current_task;   // borrowed; the task it runs
    struct local_owner *locals; // owned; what callbacks keep in Locals, NULL = nothing
    struct worker *starting;    // bound, but its function has not begun yet; or NULL
    PyObject *main_exception;   // owned; to be raised in the main program next
    struct list_node idle_watchers; // waiters of Hub.run()
    struct list_node parking_lots;  // those whose waiters its end wakes, by hub_link

    unsigned needs;                // enum hub_needs
    unsigned layer_depth;          // calls of layers and hooks that are going on
    unsigned handoffs;             // since the last poll
    unsigned unblocked_operations; // since a coroutine last gave way
    unsigned long long switch_count;
    unsigned long long turn_count; // looks at the engine

    unsigned cpu_watchers; // who wants the CPU time of tasks; 0 = it is not measured
    uint64_t cpu_mark_ns;  // the thread's CPU time as last charged; 0 = not yet
    uint64_t cpu_ns;       // the hub's own: polling and callbacks
    PyObject *stall_watch; // owned; the thread of set_stall_limit(), or NULL

    PyObject *dispatcher;      // borrowed; who called dispatch(), NULL otherwise
    int dispatch_budget;       // events this dispatch may still hand out
    int dispatched;            // events it has handed out
    unsigned dispatch_resumes; // ready entries it may still resume

    int signal_pipe[2];    // its write end is Python's wake-up fd; -1 = not set
    int chained_wakeup_fd; // whose place we took, -1 = nobody's
    struct ready_target signal_target;

    char *scratch; // owned; where reads land before their size is known
    struct write_packet *spare_packet; // owned, or NULL; what is written next goes there

    // What has just come for the callbacks of a connection. It lies behind the scratch area
    // and is the connection's only input until it is taken, or kept by conn_keep_fresh().
    SkConnObject *fresh_conn; // borrowed; NULL = there is nothing
    char *fresh_data;
    size_t fresh_length;
};

#define HUB_SCRATCH_SIZE (256 * 1024)
#define HUB_FRESH_SIZE (64 * 1024)

// Transfers this long are worth giving the GIL up for.
#define GIL_RELEASE_SIZE (64 * 1024)

// --- py_hub.c -----------------------------------------------------------------------

// The calling thread's hub, made at the first call, with the engine that PYCORONET_ENGINE
// names or else the best. Borrowed; NULL with an exception, ValueError for a wrong name.
HubObject *hub_get(struct module_state *state);

// The same with the engine called [backend], a str. Also NULL with a RuntimeError if the
// thread's hub has another engine.
HubObject *hub_get_with_engine(struct module_state *state, PyObject *backend);

// The calling thread's hub if it has one. Borrowed, no exception.
HubObject *hub_peek(void);

// The calling thread has no hub any more, if it was this one. After hub_close().
void hub_uninstall(HubObject *hub);

// 0 if the caller is in the hub's own thread; otherwise -1 with a RuntimeError that
// names [what].
int hub_check_thread(HubObject *hub, const char *what);

// The hub greenlet, made anew if the last one ended. Borrowed; NULL with an exception.
PyObject *hub_loop_greenlet(HubObject *hub);

// Leaves [exception] for the main program and wakes it if it waits. Steals it. The first
// one wins; a later one is reported.
void hub_interrupt_main(HubObject *hub, PyObject *exception);

// Who is the main program: in a child that a coroutine forked, that one. Borrowed.
TaskObject *hub_main_task(HubObject *hub);

// Raises what was left for the main program: -1 if there was something, else 0.
int hub_raise_main_exception(HubObject *hub);

// Stores the task that runs, borrowed, in [*task]; NULL in a hub callback. 0, or -1 with
// an exception while the interpreter is being finalised.
int hub_running_task(HubObject *hub, TaskObject **task);

// True if the caller is the main program and is not dispatching by hand; false also while
// the interpreter is being finalised.
bool hub_is_main_program(HubObject *hub);

// The long way to hub_task_of: looks through the tasks for the greenlet or an ancestor.
TaskObject *hub_search_task(HubObject *hub, PyObject *greenlet);

// Whose greenlet this is: the main program's task for the root and what is nested in it,
// a worker's task likewise; NULL (no exception) in the hub greenlet. Borrowed.
static inline TaskObject *
hub_task_of(HubObject *hub, PyObject *greenlet)
{
    return greenlet == hub->current_greenlet ? hub->current_task
                                             : hub_search_task(hub, greenlet);
}

// Cancels all tasks, runs their finally blocks, sends what closing connections still
// hold (at most five seconds), and frees what the hub has. Idempotent.
int hub_close(HubObject *hub);

// Frees what the hub has without running anything: for a thread that ends, and for a
// hub that has been wound down.
void hub_abandon(HubObject *hub);

// Parks the main program until it is told that somebody has ended, or the time is over:
// WOKEN_READY, WOKEN_TIMEOUT, or -1 with an exception. The caller looks whether all have.
int hub_wait_for_end(HubObject *hub, int64_t timeout_ns);

// A task, timer or connection with callbacks has ended: wakes who waits for all of them.
void hub_note_end(HubObject *hub);

// True if Hub.run() has nothing left to wait for.
bool hub_is_idle(HubObject *hub);

// --- py_parking.c -------------------------------------------------------------------

// The hub runs nobody any more: wakes who waits for something in it, in any thread.
void parking_lots_end(HubObject *hub);

// --- py_hub_type.c: functions of the module -------------------------------------------

PyObject *hub_get_hub(PyObject *module, PyObject *const *arguments, Py_ssize_t count,
                      PyObject *keyword_names);
PyObject *hub_close_at_exit(PyObject *module, PyObject *unused);

// --- py_turn.c ----------------------------------------------------------------------

// Decides who runs next and returns the greenlet to switch to, borrowed; NULL with an
// exception. It polls in place when nothing is ready. [in_loop] says that the caller is
// the hub greenlet, which alone may start workers and run callbacks.
PyObject *hub_pick_next(HubObject *hub, bool in_loop);

// Polls the engine, at most for [limit_ns] (-1: no limit), and hands events and due
// timers to their owners (unless the loop is driven by hand). 0, or -1 with an exception.
int hub_poll(HubObject *hub, int64_t limit_ns);

// The first half of hub_poll: fetches events, but hands out nothing. [is_by_hand]: for
// Hub.wait(), which may wait for what no coroutine does, and so is never a deadlock.
int hub_fetch(HubObject *hub, int64_t limit_ns, bool is_by_hand);

// Takes due timers; driven by hand, the dispatcher calls it.
void hub_run_due_timers(HubObject *hub);

// Hand-offs without a look at the engine: keeps two tasks that wake each other for ever
// from starving I/O, timers and signals.
#define HANDOFF_LIMIT HARD_OR_USUAL(1, 64)

// Reports the exception that is set, or leaves it to the main program if it is one that
// ends programs: what a callback raised, or what [subject] names.
void hub_take_exception(HubObject *hub, PyObject *subject);

// The hub greenlet's function.
PyObject *hub_loop_main(PyObject *hub, PyObject *unused);

// --- py_calls.c ---------------------------------------------------------------------

void call_queue_init(struct call_queue *queue);

// [call] is not due, and of normal priority.
static inline void
hub_call_init(struct hub_call *call, void (*run)(struct hub_call *call),
              void (*drop)(struct hub_call *call, bool is_forked))
{
    *call = (struct hub_call){.priority = PRIORITY_NORMAL, .run = run, .drop = drop};
}

// Has the hub greenlet run [call] in a round of its level; once, however often this is
// called before.
static inline void
hub_queue_call(HubObject *hub, struct hub_call *call)
{
    if (!list_is_linked(&call->link)) {
        list_append(&hub->calls.levels[call->priority], &call->link);
        hub->needs |= HUB_NEEDS_CALLS;
    }
}

// Gives [call] another priority; if it is due it joins the end of that level.
void hub_set_call_priority(HubObject *hub, struct hub_call *call, enum priority priority);

// An int that is one of enum priority. 0, or -1 with an exception.
int convert_priority(PyObject *number, uint8_t *priority);

// True if some call is due.
bool hub_has_calls(const HubObject *hub);

// Runs a round of calls; in the hub greenlet.
void hub_run_calls(HubObject *hub);

// Drops all calls that are due.
void hub_drop_calls(HubObject *hub, bool is_forked);

// Hub.run() has returned: rounds go on when the loop next runs.
void hub_end_halt(HubObject *hub);

// Methods of the Hub type.
extern PyMethodDef hub_call_methods[];

// --- py_dump.c ----------------------------------------------------------------------

// Methods of the Hub type.
extern PyMethodDef hub_dump_methods[];

// --- py_inspect.c -------------------------------------------------------------------

// The clock by which waits are dated: read once between two looks at the engine, when
// somebody first waits.
static inline uint64_t
hub_wait_time(HubObject *hub)
{
    if (hub->wait_time_ns == 0) {
        hub->wait_time_ns = reactor_now_ns(&hub->reactor);
    }
    return hub->wait_time_ns;
}

// Charges the CPU time since it was last called to [task], or with NULL to the hub itself.
void hub_charge_cpu(HubObject *hub, TaskObject *task);

// The same, if anybody wants to know: where somebody stops running.
static inline void
hub_note_cpu(HubObject *hub, TaskObject *task)
{
    if (hub->cpu_watchers > 0) {
        hub_charge_cpu(hub, task);
    }
}

// Who waits for what: a tuple of a list of str, one a wait, and one of those circles in which
// each waits for the next. A new reference, NULL with an exception.
PyObject *hub_explain_waits(HubObject *hub);

// What each task does: a list of str, a new reference; NULL with an exception.
PyObject *hub_describe_tasks(HubObject *hub);

// " waiting in recv for 3.2 s, in write for 0.1 s" of two waiters that may be NULL; "" without
// any. A new reference, NULL with an exception.
PyObject *describe_waits(HubObject *hub, const struct waiter *first,
                         const struct waiter *second);

// Threads look at the hub if PYCORONET_INSPECT or a stall limit says so: HUB_NEEDS_WATCHERS if
// they have to be started, when it is made or after a fork, or 0.
unsigned hub_wanted_watchers(const HubObject *hub);

// Starts them. Reports what fails.
void hub_start_watchers(HubObject *hub);

// Ends the watch for stalls, if there is one; with [waits] its thread has ended then.
void hub_end_stall_watch(HubObject *hub, bool waits);

// Ends what PYCORONET_INSPECT has begun, in a process that runs no exit functions.
void inspect_stop(void);

// Methods of the Hub type, and functions of the module.
extern PyMethodDef hub_inspect_methods[];
PyObject *inspect_list_hubs(PyObject *module, PyObject *unused);

// --- py_waiter.c --------------------------------------------------------------------

void waiter_init(struct waiter *waiter);

// 0 if the caller could wait here; -1 with a RuntimeError that names [operation] in a hub
// callback or if the hub is closed.
int hub_check_may_wait(HubObject *hub, const char *operation);

// Parks the running greenlet, at most [timeout_ns] (-1: no limit). While it waits, its
// record stands in [*place] (unless place is NULL), and at the end of [queue] (unless that
// is NULL) until it is woken. [operation] and [subject] (borrowed, or NULL) name the wait in
// reports. Returns WOKEN_READY, WOKEN_TIMEOUT or WOKEN_CLOSED, or -1 with an exception: the
// task is cancelled, the main program interrupted, something was thrown in, or this is a
// hub callback, where nobody may wait. PARK_FORFEITED instead of -1 says that it had been
// woken as ready before that came: what it was given then is to be given to somebody else.
// Switches.
#define PARK_FORFEITED (-2)
int hub_park(HubObject *hub, struct waiter **place, struct list_node *queue,
             enum waiter_kind kind, int64_t timeout_ns, const char *operation,
             PyObject *subject);

// The two halves of hub_park(). The first takes a record for the running greenlet: its task's
// own if that is free, else one from the heap. Borrowed, NULL with an exception where nobody may
// wait. It may run code. Between it and the second half, which runs none before the waiter stands
// in its queue, one may still look and release the record instead.
struct waiter *hub_hold_waiter(HubObject *hub, const char *operation);
void hub_release_waiter(HubObject *hub, struct waiter *waiter);
int hub_park_held(HubObject *hub, struct waiter *waiter, struct waiter **place,
                  struct list_node *queue, enum waiter_kind kind, int64_t timeout_ns,
                  const char *operation, PyObject *subject);

// Wakes a parked waiter for [status]; false if it is not parked (any more).
bool waiter_wake(HubObject *hub, struct waiter *waiter, enum waiter_status status);

// Lets the others run: to the back of the ready queue. 0, or -1 with an exception.
int hub_yield(HubObject *hub, const char *operation);

// Gives way after many operations that did not block. 0, or -1 with an exception.
int hub_give_way(HubObject *hub);

// Before the reactor is closed: disarms the timers of those who outlive it.
void hub_stop_timers(HubObject *hub);

// Counts an operation that did not block; after too many in a row it gives way. Cheap.
#define HUB_OPERATION_BUDGET HARD_OR_USUAL(1, 256)
static inline int
hub_count_operation(HubObject *hub)
{
    if (++hub->unblocked_operations < HUB_OPERATION_BUDGET) {
        return 0;
    }
    return hub_give_way(hub);
}

// --- py_parking.c -------------------------------------------------------------------

// Queues of waiters of any hub and any thread. The GIL guards them.

// Takes a record for the caller in the hub of its thread, which is made if there is none, and
// stores that, borrowed, in [*hub]. NULL with an exception. As hub_hold_waiter(): what the
// caller waits for may be changed by others meanwhile, so it looks once more, and then either
// parks or releases the record.
struct waiter *parking_prepare(struct module_state *state, const char *operation,
                               HubObject **hub);

// The second half.
static inline int
parking_wait(HubObject *hub, struct waiter *waiter, struct list_node *queue,
             int64_t timeout_ns, const char *operation, PyObject *subject)
{
    return hub_park_held(hub, waiter, NULL, queue, WAITS_FOR_OTHERS, timeout_ns,
                         operation, subject);
}

// Wakes who waits longest for [status], in whatever thread. Its task, borrowed; NULL if
// nobody waits.
TaskObject *parking_wake_first(struct list_node *queue, enum waiter_status status);

void parking_wake_all(struct list_node *queue, enum waiter_status status);

// Lets go of those who can never run again, for they are of a thread that has ended or was
// left behind by a fork: all there are, when the owner of the queue goes.
void parking_clear(struct list_node *queue);

// --- py_worker.c --------------------------------------------------------------------

// A worker for [task], bound to it: an idle one, or with [may_start] a new one. NULL
// without an exception if there is no idle one, with an exception if none can be made.
// The reference to the greenlet goes to the worker itself, who drops it once resumed.
PyObject *hub_bind_worker(HubObject *hub, TaskObject *task, bool may_start);

// Ends idle workers above the limit, [at_most] so many. Only in the hub greenlet.
void hub_trim_workers(HubObject *hub, unsigned at_most);

// The workers' function.
PyObject *worker_main(PyObject *hub, PyObject *unused);

// --- py_signals.c -------------------------------------------------------------------

// Opens what signals will wake the hub by: when it is made, for later no descriptor may be left
// for it. Nothing outside the main thread, or if it is open. 0, or -1 with an exception.
int hub_open_signal_pipe(HubObject *hub);

// Takes SIGINT over if it has Python's own handler, and the wake-up descriptor. Only in
// the main thread; does nothing elsewhere or when done before. 0, or -1 with an exception.
int hub_take_signals(HubObject *hub);

// Runs the signal handlers that are due, for the main program. 0, or -1 with what one has raised.
int hub_run_signal_handlers(HubObject *hub);
void hub_give_signals_back(HubObject *hub);

// signal.<name>(*arguments), with arguments as of Py_BuildValue, which must give a tuple; by
// the module under it, which makes no enums. A new reference, NULL with an exception.
PyObject *call_signal_module(const char *name, const char *format, ...);

// The Python function that stands in for default_int_handler.
PyObject *signals_interrupt(PyObject *module, PyObject *arguments);

// True if a Python signal handler other than ours is installed: it may wake anybody.
bool signals_may_wake(HubObject *hub);

// --- py_fork.c ----------------------------------------------------------------------

// In a forked child: only the running coroutine lives on.
PyObject *hub_after_fork_in_child(PyObject *module, PyObject *unused);

// In a child that a coroutine forked, the main program was left behind in the parent, and
// its finally blocks and exit functions are the parent's. So the process ends like one
// that multiprocessing forked: the standard streams are flushed, and nothing else runs.
void hub_end_orphaned_process(TaskObject *task);

#endif
