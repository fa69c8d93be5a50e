// py_convert.h: arguments in, errors out.

#ifndef CORONET_PY_CONVERT_H
#define CORONET_PY_CONVERT_H

#include "py_state.h"

// What a parameter list looks like to parse_arguments().
struct parameters {
    const char *function;     // the name for messages
    const char *const *names; // NULL-terminated
    int required;             // how many must be given
    int positional;           // how many may be given by position
};

// Sorts vectorcall arguments into [values], one per name, borrowed; NULL where an
// optional one is not given. 0, or -1 with a TypeError.
int sort_arguments(const struct parameters *parameters, PyObject *const *arguments,
                   Py_ssize_t positional_count, PyObject *keyword_names,
                   PyObject **values);

// The same, and fast for the usual call of most functions.
static inline int
parse_arguments(const struct parameters *parameters, PyObject *const *arguments,
                Py_ssize_t positional_count, PyObject *keyword_names, PyObject **values)
{
    if (keyword_names == NULL && positional_count == 1 && parameters->positional > 0 &&
        parameters->names[1] == NULL) {
        values[0] = arguments[0];
        return 0;
    }
    return sort_arguments(parameters, arguments, positional_count, keyword_names, values);
}

// Whether an object of [type], which [name] is in messages, may be made of these arguments:
// none, or what the __init__() of a subclass takes. 0, or -1 with a TypeError.
int check_made_of_nothing(PyTypeObject *type, const char *name, PyObject *arguments,
                          PyObject *keywords);

// The place of a str among the names, which end with NULL; -1 if it is none of them.
int find_name(const char *const *names, PyObject *text);

// Appends to a list and gives [item] up, which is NULL after a failure. 0, or -1 with an
// exception.
int append_item(PyObject *list, PyObject *item);

// A tuple of [count] objects, a new reference; NULL with an exception.
PyObject *pack_tuple(PyObject *const *objects, Py_ssize_t count);

// Seconds (a number >= 0, or None, or NULL for "not given") to nanoseconds; -1 for None,
// infinity and NULL. Rounded up; more than the timer wheel's year is brought back to it.
// 0, or -1 with a TypeError or, for a negative number or NaN, a ValueError.
int convert_timeout(PyObject *seconds, int64_t *timeout_ns);

// The way back: a float, or None for -1. A new reference.
PyObject *timeout_to_seconds(int64_t timeout_ns);

// An int >= [least] as a size; NULL gives [fallback]. 0, or -1 with an exception.
int convert_size(PyObject *number, const char *name, Py_ssize_t least,
                 Py_ssize_t fallback, Py_ssize_t *size);

// An int that fits a C int; NULL gives [fallback]. 0, or -1 with an exception.
int convert_int(PyObject *number, const char *name, int fallback, int *value);

// The truth of an object, 0 or 1; NULL leaves [*flag], the default, as it is. 0, or -1 with an exception.
int convert_flag(PyObject *object, int *flag);

// The attribute of that name; a new reference, NULL with an exception. The name is interned:
// one made afresh for each call would take a new place in the interpreter's method cache.
PyObject *get_attribute(PyObject *object, const char *name);

// object.name(argument), or object.name() with NULL. A new reference, NULL with an exception.
PyObject *call_attribute(PyObject *object, const char *name, PyObject *argument);

// Raises the OSError subclass for [negative_errno] (-errno). Returns NULL.
PyObject *raise_errno(int negative_errno);

// Raises [exception], which it steals; with NULL the one that is set already stays.
// Returns NULL.
PyObject *raise_object(PyObject *exception);

// Raises [type], OSError or a class below it, of an errno with a text of its own, made as
// by PyUnicode_FromFormat. Returns NULL.
PyObject *raise_os_error(PyObject *type, int number, const char *format, ...);

// The exception that is set, normalised and with its traceback, as a new reference; the
// error indicator is cleared; NULL if none is set. restore_exception() sets it again, also
// none, and steals it.
PyObject *take_exception(void);
void restore_exception(PyObject *exception);

// Reports the exception that is set through sys.unraisablehook, naming [subject].
void report_exception(PyObject *subject);

#endif
