// py_task.h: coroutines, and the scopes that bound what they do.
//
// A Task is what a coroutine is: function, arguments, context, outcome. A greenlet is
// only what runs it for the time being, so whatever is kept "per coroutine" hangs on
// the Task.

#ifndef CORONET_PY_TASK_H
#define CORONET_PY_TASK_H

#include "greenlet_bridge.h"
#include "py_hub.h"

typedef struct GroupObject GroupObject;
typedef struct ScopeObject ScopeObject;
struct task_link;

enum task_state {
    TASK_CREATED,   // made by co_create, never entered
    TASK_QUEUED,    // on the ready list, not begun
    TASK_RUNNING,   // bound to a worker (or the main program)
    TASK_SUCCEEDED, // ended; value is the result
    TASK_FAILED,    // ended; value is the exception
    TASK_CANCELLED, // ended by Cancelled; value is the exception
};

struct TaskObject {
    PyObject_HEAD
    PyObject *weak_references;
    HubObject *hub;          // owned
    PyObject *function;      // owned
    PyObject *arguments;     // owned tuple until the task ends: positional, then the
                             // values of keyword_names
    PyObject *keyword_names; // owned tuple or NULL
    PyObject *context;       // owned contextvars.Context until the task ends
    PyObject *connection;    // owned; a connection to close when the task ends, or NULL
    PyObject *value;         // owned; the outcome
    PyObject *name;          // owned; NULL = made from the function's name on demand
    PyObject *cancel_reason; // owned; what cancel() was given last, or NULL
    unsigned long number;    // for the default name
    unsigned long long switch_count; // how often it has given way, or waited
    uint64_t cpu_ns;                 // as far as it was measured (hub->cpu_watchers)
    uint8_t state;                   // enum task_state
    PyObject *greenlet; // borrowed; the worker that runs it (the root, for the main
                        // program), NULL before and after
    bool is_main;       // stands for the main program
    bool is_cancelled;  // cancel() was called
    uint16_t refusals;  // waits in a row that raised Cancelled

    struct list_node hub_link;  // on hub->tasks from its start until it ends
    struct list_node waiters;   // the waits its greenlets are in
    struct list_node joiners;   // waiters of join() and get(), by link
    struct waiter waiter;       // for its start, then for any wait while it is free
    ScopeObject *scope;         // owned; innermost, NULL = none
    struct local_owner *locals; // owned; what it keeps in Locals, NULL = nothing
    struct task_link *links;    // owned; the first of those that link() made, NULL = none

    GroupObject *group;          // owned; the TaskGroup it is in until it ends, or NULL
    struct list_node group_link; // on its members; of one that failed, on its failures

    struct waiter *caller; // of who entered it by co_call and gets control back when
                           // it first waits; NULL = nobody
    struct waiter *resume_waiter; // parked in co_resume, NULL = not
    bool resumes_at_once;         // what mod() asked for was ready before co_resume
};

// Switches from [me], which runs [task] (NULL in the loop), to [target], and notes who runs
// when control is back. 0, or -1 with the exception thrown into us. Inline, for its frame
// would be part of every suspended greenlet's stack.
static inline int
hub_switch(HubObject *hub, PyObject *target, PyObject *me, TaskObject *task)
{
    hub->switch_count++;
    // It may end while we are suspended here, and the C API wants it held until then.
    Py_INCREF(target);
    PyObject *result = greenlet_switch(target);
    Py_DECREF(target);
    // A greenlet nested in a task is found by its ancestors: it may end without our
    // knowing, and another one be made in its place.
    hub->current_greenlet = task == NULL || task->greenlet == me ? me : NULL;
    hub->current_task = task;
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    return 0;
}

static inline bool
task_has_ended(const TaskObject *task)
{
    return task->state >= TASK_SUCCEEDED;
}

// --- py_task.c ----------------------------------------------------------------------

// A new task that will call [function] with the vectorcall arguments given. Not queued.
TaskObject *task_new(HubObject *hub, PyObject *function, PyObject *const *arguments,
                     Py_ssize_t positional_count, PyObject *keyword_names);

// The task object that stands for a hub's main program.
TaskObject *task_new_main(HubObject *hub);

// Puts a new task at the end of the ready queue.
void task_queue(TaskObject *task);

// The same after [delay_ns], or when it is cancelled.
void task_queue_later(TaskObject *task, uint64_t delay_ns);

// Calls the task's function and keeps the outcome; in a worker.
void task_run(TaskObject *task);

// Ends a task with the exception that is set (it is cleared), or with [value] (stolen).
void task_finish(TaskObject *task, PyObject *value);

// The wait that the task's own greenlet is in, not one nested in it; NULL = none.
struct waiter *task_own_wait(TaskObject *task);

// True if the task was ended by GreenletExit: somebody let go of its greenlet.
bool task_was_killed(TaskObject *task);

// --- py_task_type.c -----------------------------------------------------------------

// "Task 'name'" for messages. A new reference, NULL with an exception.
PyObject *task_describe(TaskObject *task);

// " running", " waiting in recv for 3.2 s" ... A new reference, NULL with an exception. For any
// thread.
PyObject *task_describe_state(TaskObject *task);

// The running task, None in a hub callback. A new reference, NULL with an exception.
PyObject *task_find_current(HubObject *hub);

// spawn(function, *args, **kwargs), and the server's spawn_handler(function, conn, address).
PyObject *task_spawn(PyObject *module, PyObject *const *arguments, Py_ssize_t count,
                     PyObject *keyword_names);
PyObject *task_spawn_handler(PyObject *module, PyObject *const *arguments,
                             Py_ssize_t count);
PyObject *task_spawn_later(PyObject *module, PyObject *const *arguments, Py_ssize_t count,
                           PyObject *keyword_names);
PyObject *task_current(PyObject *module, PyObject *unused);
PyObject *task_sleep(PyObject *module, PyObject *const *arguments, Py_ssize_t count,
                     PyObject *keyword_names);

// --- py_task_link.c -----------------------------------------------------------------

// Has the functions linked to a task that ends called. It has some.
void task_queue_links(TaskObject *task);

// True if one of them looks at how the task ended.
bool task_links_handle_failure(TaskObject *task);

// Lets go of all of them, uncalled.
void task_drop_links(TaskObject *task);

int task_visit_links(TaskObject *task, visitproc visit, void *arg);

// Methods of the Task type.
extern const char task_link_doc[];
extern const char task_unlink_doc[];
PyObject *Task_link(TaskObject *task, PyObject *const *arguments, Py_ssize_t count,
                    PyObject *keyword_names);
PyObject *Task_unlink(TaskObject *task, PyObject *function);

// --- py_scope.c ---------------------------------------------------------------------

// False if no wait of the task can have to raise Cancelled: nobody has cancelled it, and no
// scope bounds it.
static inline bool
task_may_be_cancelled(const TaskObject *task)
{
    return task->is_cancelled || task->scope != NULL;
}

// Marks the task cancelled and wakes what it waits in, as far as no shield protects it. Runs
// no code unless there is a reason in place of another one.
void task_cancel(TaskObject *task, PyObject *reason);

// The running task, for a block to bound it: borrowed, NULL with an exception.
TaskObject *scope_find_task(struct module_state *state);

// True if a wait of the task has to raise Cancelled now; [*scope] is the scope whose
// deadline it was (borrowed), NULL if the task itself was cancelled.
bool task_is_cancel_due(TaskObject *task, ScopeObject **scope);

// Raises the Cancelled that is due; -1 always.
int task_raise_cancelled(TaskObject *task, ScopeObject *scope);

// Wakes the task's waiters if a cancel is due.
void task_deliver_cancel(TaskObject *task);

// A task that swallows so many Cancelled in a row is reported, and slowed down: each further
// one comes after a pause, so that neither the others nor virtual time are held up.
#define CANCEL_LIMIT 1000
#define CANCEL_PAUSE_NS 10000000

// Counts a wait that raises Cancelled. True from the limit on; when it is reached code runs.
bool task_count_refusal(TaskObject *task);

// Takes a task that ends off the scopes it has not left.
void task_leave_scopes(TaskObject *task);

// The deadlines of the scopes it has entered never come.
void task_stop_scopes(TaskObject *task);

// A scope without a deadline that [task] is in from now on; __exit__() leaves it. Its own
// Cancelled ends the block and nothing else. A new reference, NULL with an exception.
ScopeObject *scope_open(TaskObject *task);

// Ends the block of an entered scope; [reason] may be NULL. Calls nothing.
void scope_cancel(ScopeObject *scope, PyObject *reason);

// timeout(seconds), move_on_after(seconds) and shield(seconds=None).
PyObject *scope_timeout(PyObject *module, PyObject *seconds);
PyObject *scope_move_on_after(PyObject *module, PyObject *seconds);
PyObject *scope_shield(PyObject *module, PyObject *const *arguments, Py_ssize_t count,
                       PyObject *keyword_names);

// --- py_group.c -----------------------------------------------------------------------

// True if the task's group is to hear of its failure, which is then reported by nobody else.
bool group_takes_failure(const TaskObject *task);

// Takes a task that has ended off its group, which keeps its failure and cancels the others.
void group_note_end(TaskObject *task);

// For a forked child: an abandoned task never ends, so its group does not wait for it.
void group_abandon_member(TaskObject *task);

// --- py_coroutine.c: the five calls of pcl(3) ----------------------------------------

// Whom the task has to give control back to now that it waits or ends: the greenlet,
// borrowed, or NULL.
PyObject *task_take_caller(TaskObject *task);

// The same, but whom it is has to stand in line.
void task_wake_caller(TaskObject *task);

PyObject *coroutine_create(PyObject *module, PyObject *const *arguments,
                           Py_ssize_t count);
PyObject *coroutine_call(PyObject *module, PyObject *task);
PyObject *coroutine_resume(PyObject *module, PyObject *unused);
PyObject *coroutine_delete(PyObject *module, PyObject *task);

#endif
