// py_state.h: what the extension module keeps, and what all of layer 3 includes.
//
// There is one module object a process (sub-interpreters are refused, as greenlet
// refuses them). Its types hold the module, so an object's hub may keep a borrowed
// pointer to this state.

#ifndef CORONET_PY_STATE_H
#define CORONET_PY_STATE_H

// Python.h has to come before any system header.
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>

#include "list.h"
#include "live_counts.h"

struct module_state {
    // Types, owned.
    PyTypeObject *hub_type;
    PyTypeObject *task_type;
    PyTypeObject *conn_type;
    PyTypeObject *scope_type;
    PyTypeObject *group_type;
    PyTypeObject *parking_lot_type;
    PyTypeObject *timer_type;
    PyTypeObject *hook_type;
    PyTypeObject *once_type;
    PyTypeObject *signal_type;
    PyTypeObject *guest_type;
    PyTypeObject *layer_type;
    PyTypeObject *line_iterator_type;
    PyTypeObject *rate_limit_type;
    PyTypeObject *rate_group_type;
    PyTypeObject *traffic_type;
    PyTypeObject *faults_type;
    PyTypeObject *lock_type;
    PyTypeObject *queue_type;
    PyTypeObject *waiter_type;

    // Exceptions, owned; defined in pycoronet/errors.py.
    PyObject *Cancelled;
    PyObject *ClosedError;
    PyObject *BusyError;
    PyObject *LineTooLongError;
    PyObject *IncompleteReadError;
    PyObject *DeadlockError;
    PyObject *ShutDown;

    // The queue module's, owned.
    PyObject *queue_empty;
    PyObject *queue_full;

    // Names of a protocol's methods, owned and interned.
    PyObject *on_open;
    PyObject *on_data;
    PyObject *on_ready;
    PyObject *on_eof;
    PyObject *on_error;
    PyObject *on_timeout;
    PyObject *on_shutdown;
    PyObject *on_close;
    // What layers are called by: interned names, owned.
    PyObject *name_wrap;
    PyObject *name_unwrap;
    PyObject *name_finish;
    PyObject *name_started;
    PyObject *name_on_clear;

    PyObject *resolve;           // owned; pycoronet's resolver of host names, or NULL
    PyObject *interrupt_handler; // owned; stands in for Python's own SIGINT handler
    PyObject *signal_dispatcher; // owned; the handler behind signal_handler()
    struct list_node open_hubs;  // those of all threads
    long idle_thread_count;      // threads of ours that wait for work and can wake nobody
    unsigned long fork_count;    // forks between the first process and this one
    unsigned long task_count;    // tasks made so far, for their default names
    bool reuses_workers;         // false with PYCORONET_FRESH_GREENLETS=1
};

struct module_state *module_state_of(PyObject *module);

// The same by one of the module's types, or by one derived from it.
struct module_state *module_state_of_type(PyTypeObject *type);

// Makes the type of [spec] and adds it to the module under its name. A new reference,
// NULL with an exception.
PyTypeObject *add_type(PyObject *module, PyType_Spec *spec);

// Types, one function a file: by add_type().
PyTypeObject *hub_type_new(PyObject *module);
PyTypeObject *task_type_new(PyObject *module);
PyTypeObject *conn_type_new(PyObject *module);
PyTypeObject *scope_type_new(PyObject *module);
PyTypeObject *group_type_new(PyObject *module);
PyTypeObject *parking_lot_type_new(PyObject *module);
PyTypeObject *timer_type_new(PyObject *module);
PyTypeObject *hook_type_new(PyObject *module);
PyTypeObject *once_type_new(PyObject *module);
PyTypeObject *signal_type_new(PyObject *module);
PyTypeObject *guest_type_new(PyObject *module);
PyTypeObject *layer_type_new(PyObject *module);
PyTypeObject *line_iterator_type_new(PyObject *module);
PyTypeObject *rate_limit_type_new(PyObject *module);
PyTypeObject *rate_group_type_new(PyObject *module);
PyTypeObject *traffic_type_new(PyObject *module);
PyTypeObject *faults_type_new(PyObject *module);
PyTypeObject *lock_type_new(PyObject *module);
PyTypeObject *queue_type_new(PyObject *module);

#endif
