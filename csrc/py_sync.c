// py_sync.c: what the synchronisation types share: their arguments, and making them.

#include "py_sync.h"

#include "py_convert.h"

int
sync_convert_timeout(PyObject *seconds, int64_t *timeout_ns)
{
    if (seconds != NULL && seconds != Py_None && PyNumber_Check(seconds)) {
        PyObject *zero = PyLong_FromLong(0);
        int is_negative =
            zero == NULL ? -1 : PyObject_RichCompareBool(seconds, zero, Py_LT);
        Py_XDECREF(zero);
        if (is_negative != 0) {
            *timeout_ns = 0;
            return is_negative < 0 ? -1 : 0;
        }
    }
    return convert_timeout(seconds, timeout_ns);
}

int
sync_convert_blocking(PyObject *blocking, PyObject *timeout, int64_t *timeout_ns)
{
    int is_blocking = 1;
    if (convert_flag(blocking, &is_blocking) < 0) {
        return -1;
    }
    if (is_blocking) {
        return sync_convert_timeout(timeout, timeout_ns);
    }
    if (timeout != NULL && timeout != Py_None) {
        PyErr_SetString(PyExc_ValueError,
                        "acquire() that does not block takes no timeout");
        return -1;
    }
    *timeout_ns = 0;
    return 0;
}

PyObject *
sync_type_name(PyObject *object)
{
    PyObject *type = (PyObject *)Py_TYPE(object);
    PyObject *module = get_attribute(type, "__module__");
    PyObject *name = module == NULL ? NULL : get_attribute(type, "__qualname__");
    PyObject *text = name == NULL ? NULL : PyUnicode_FromFormat("%S.%S", module, name);
    Py_XDECREF(module);
    Py_XDECREF(name);
    return text;
}

PyTypeObject *
sync_add_derived_type(PyObject *module, PyType_Spec *spec, const char *base)
{
    PyObject *bases = PyObject_GetAttrString(module, base);
    PyObject *type = bases == NULL ? NULL : PyType_FromModuleAndSpec(module, spec, bases);
    Py_XDECREF(bases);
    if (type != NULL && PyModule_AddType(module, (PyTypeObject *)type) < 0) {
        Py_CLEAR(type); // not reached: imports have memory here
    }
    return (PyTypeObject *)type;
}

int
sync_add_types(PyObject *module)
{
    PyTypeObject *(*const makers[])(PyObject * module) = {
        event_type_new,        semaphore_type_new,         recursive_lock_type_new,
        simple_queue_type_new, bounded_semaphore_type_new, lifo_queue_type_new,
    };
    for (size_t i = 0; i < Py_ARRAY_LENGTH(makers); i++) {
        PyTypeObject *type = makers[i](module);
        if (type == NULL) {
            return -1; // not reached: imports have memory here
        }
        Py_DECREF(type); // the module holds it
    }
    return 0;
}
