// py_convert.c: arguments in, errors out; see py_convert.h.
//
// The one place where a -errno becomes an exception and where seconds become the
// nanoseconds of layers 1 and 2.

#include "py_convert.h"

#include <errno.h>
#include <limits.h>
#include <math.h>

#include "timer_wheel.h"

#define NANOSECONDS INT64_C(1000000000)

int
check_made_of_nothing(PyTypeObject *type, const char *name, PyObject *arguments,
                      PyObject *keywords)
{
    bool has_arguments = PyTuple_GET_SIZE(arguments) > 0 ||
                         (keywords != NULL && PyDict_GET_SIZE(keywords) > 0);
    if (has_arguments && type->tp_init == PyBaseObject_Type.tp_init) {
        PyErr_Format(PyExc_TypeError,
                     "%s() takes no arguments; the __init__() of a subclass does", name);
        return -1;
    }
    return 0;
}

int
find_name(const char *const *names, PyObject *text)
{
    for (int i = 0; names[i] != NULL; i++) {
        // Most names differ in the first character, which is cheaper to look at.
        if (PyUnicode_IS_COMPACT_ASCII(text) &&
            PyUnicode_1BYTE_DATA(text)[0] != (Py_UCS1)names[i][0]) {
            continue;
        }
        if (PyUnicode_CompareWithASCIIString(text, names[i]) == 0) {
            return i;
        }
    }
    return -1;
}

static int
parse_keywords(const struct parameters *parameters, PyObject *const *arguments,
               PyObject *keyword_names, PyObject **values)
{
    Py_ssize_t count = PyTuple_GET_SIZE(keyword_names);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *keyword = PyTuple_GET_ITEM(keyword_names, i);
        int place = find_name(parameters->names, keyword);
        if (place < 0) {
            PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'",
                         parameters->function, keyword);
            return -1;
        }
        if (values[place] != NULL) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%U'",
                         parameters->function, keyword);
            return -1;
        }
        values[place] = arguments[i];
    }
    return 0;
}

int
sort_arguments(const struct parameters *parameters, PyObject *const *arguments,
               Py_ssize_t positional_count, PyObject *keyword_names, PyObject **values)
{
    if (positional_count > parameters->positional) {
        PyErr_Format(PyExc_TypeError,
                     "%s() takes at most %d positional argument%s (%zd given)",
                     parameters->function, parameters->positional,
                     parameters->positional == 1 ? "" : "s", positional_count);
        return -1;
    }
    for (int i = 0; parameters->names[i] != NULL; i++) {
        values[i] = i < positional_count ? arguments[i] : NULL;
    }
    if (keyword_names != NULL && parse_keywords(parameters, arguments + positional_count,
                                                keyword_names, values) < 0) {
        return -1;
    }
    for (int i = 0; i < parameters->required; i++) {
        if (values[i] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s() missing required argument '%s'",
                         parameters->function, parameters->names[i]);
            return -1;
        }
    }
    return 0;
}

int
append_item(PyObject *list, PyObject *item)
{
    int error = item == NULL ? -1 : PyList_Append(list, item);
    Py_XDECREF(item);
    return error;
}

PyObject *
pack_tuple(PyObject *const *objects, Py_ssize_t count)
{
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++) {
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(objects[i]));
    }
    return tuple;
}

int
convert_timeout(PyObject *seconds, int64_t *timeout_ns)
{
    if (seconds == NULL || seconds == Py_None) {
        *timeout_ns = -1;
        return 0;
    }
    // An int's way over its __float__ would make an object.
    double value =
        PyLong_CheckExact(seconds) ? PyLong_AsDouble(seconds) : PyFloat_AsDouble(seconds);
    if (value == -1.0 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
            // An int too large for a float: as good as a year.
            PyErr_Clear();
            value =
                PyObject_RichCompareBool(seconds, Py_False, Py_LT) == 1 ? -1.0 : 1e300;
        }
        else if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Format(PyExc_TypeError,
                         "timeout must be a number of seconds or None, not %s",
                         Py_TYPE(seconds)->tp_name);
            return -1;
        }
        else {
            return -1;
        }
    }
    if (isnan(value)) {
        PyErr_SetString(PyExc_ValueError, "timeout must not be NaN");
        return -1;
    }
    if (value < 0) {
        PyErr_SetString(PyExc_ValueError,
                        "timeout must not be negative; None waits for ever");
        return -1;
    }
    const double longest = (double)TIMER_MAX_DELAY_MS / 1e3;
    if (isinf(value)) {
        *timeout_ns = -1;
    }
    else if (value >= longest) {
        *timeout_ns = (int64_t)TIMER_MAX_DELAY_MS * 1000000;
    }
    else {
        *timeout_ns = (int64_t)ceil(value * (double)NANOSECONDS);
    }
    return 0;
}

PyObject *
timeout_to_seconds(int64_t timeout_ns)
{
    if (timeout_ns < 0) {
        Py_RETURN_NONE;
    }
    return PyFloat_FromDouble((double)timeout_ns / (double)NANOSECONDS);
}

int
convert_size(PyObject *number, const char *name, Py_ssize_t least, Py_ssize_t fallback,
             Py_ssize_t *size)
{
    if (number == NULL) {
        *size = fallback;
        return 0;
    }
    // A number too large for memory is clipped: as a size it is as good as the largest.
    *size = PyNumber_AsSsize_t(number, NULL);
    if (*size == -1 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Format(PyExc_TypeError, "%s must be an int, not %s", name,
                         Py_TYPE(number)->tp_name);
        }
        return -1;
    }
    if (*size < least) {
        PyErr_Format(PyExc_ValueError, "%s must be at least %zd", name, least);
        return -1;
    }
    return 0;
}

int
convert_int(PyObject *number, const char *name, int fallback, int *value)
{
    if (number == NULL) {
        *value = fallback;
        return 0;
    }
    long wide = -1;
    PyObject *index = PyNumber_Index(number);
    if (index != NULL) {
        wide = PyLong_AsLong(index);
        Py_DECREF(index);
    }
    if (wide == -1 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Format(PyExc_TypeError, "%s must be an int, not %s", name,
                         Py_TYPE(number)->tp_name);
            return -1;
        }
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) {
            return -1;
        }
    }
    if (PyErr_Occurred() || wide < INT_MIN || wide > INT_MAX) {
        PyErr_Format(PyExc_OverflowError, "%s does not fit a C int", name);
        return -1;
    }
    *value = (int)wide;
    return 0;
}

int
convert_flag(PyObject *object, int *flag)
{
    if (object == NULL) {
        return 0;
    }
    int truth = PyObject_IsTrue(object);
    if (truth < 0) {
        return -1;
    }
    *flag = truth;
    return 0;
}

PyObject *
get_attribute(PyObject *object, const char *name)
{
    PyObject *interned = PyUnicode_InternFromString(name);
    PyObject *value = interned == NULL ? NULL : PyObject_GetAttr(object, interned);
    Py_XDECREF(interned);
    return value;
}

PyObject *
call_attribute(PyObject *object, const char *name, PyObject *argument)
{
    PyObject *method = get_attribute(object, name);
    if (method == NULL) {
        return NULL;
    }
    PyObject *result = argument == NULL ? PyObject_CallNoArgs(method)
                                        : PyObject_CallOneArg(method, argument);
    Py_DECREF(method);
    return result;
}

PyObject *
raise_errno(int negative_errno)
{
    if (negative_errno == -ENOMEM) {
        return PyErr_NoMemory();
    }
    errno = -negative_errno;
    return PyErr_SetFromErrno(PyExc_OSError);
}

PyObject *
raise_object(PyObject *exception)
{
    if (exception != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
        Py_DECREF(exception);
    }
    return NULL;
}

PyObject *
raise_os_error(PyObject *type, int number, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    PyObject *text = PyUnicode_FromFormatV(format, values);
    va_end(values);
    PyObject *error =
        text == NULL ? NULL : PyObject_CallFunction(type, "iO", number, text);
    Py_XDECREF(text);
    return raise_object(error);
}

PyObject *
take_exception(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(value, traceback);
        Py_DECREF(traceback);
    }
    Py_XDECREF(type);
    return value;
#endif
}

void
restore_exception(PyObject *exception)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(exception);
#else
    PyObject *type = exception == NULL ? NULL : (PyObject *)Py_TYPE(exception);
    PyObject *traceback = exception == NULL ? NULL : PyException_GetTraceback(exception);
    Py_XINCREF(type);
    PyErr_Restore(type, exception, traceback);
#endif
}

void
report_exception(PyObject *subject)
{
    PyErr_WriteUnraisable(subject);
}
