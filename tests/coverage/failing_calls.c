// failing_calls.c: calls that layer 3 makes of CPython and of the C library's allocator, one
// of which fails when asked. Part of builds with CORONET_COVERAGE=1 alone.
//
// Functions of our own are in the table too, where they can fail for want of memory but need
// none as a rule: a buffer has room left, a record is at hand. Only calls from other files
// are seen.
//
// Each name in the table at the end can fail for want of memory. The linker's --wrap option,
// with that name, sends our calls to a trampoline; calls inside CPython and greenlet are not
// seen. That matters: greenlet ends the process if it cannot allocate, so an operation that
// switches can only be tried with failures of our own calls.
//
// The trampoline knows no prototype: it keeps the registers of the arguments, asks
// decide_call() and either goes on to the function or returns what stands for an error.

#include <Python.h>

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>

#define EXPORTED __attribute__((visibility("default"), used))

enum outcome {
    OUTCOME_NORMAL,
    OUTCOME_FAILURE, // without an exception: the C allocator's way
    OUTCOME_ERROR    // with MemoryError
};

// One thread asks for failures, and only its own calls are counted.
static _Thread_local long calls_left; // until the call that fails, 0 = none will
static _Thread_local bool was_reached;
static atomic_long live_blocks; // of the C library's

void __gcov_dump(void);
EXPORTED void coronet_fail_call(long number);
EXPORTED int coronet_allow_calls(void);
EXPORTED long coronet_live_blocks(void);
EXPORTED void coronet_write_counters(void);
__attribute__((used, visibility("hidden"))) int coronet_decide_call(int failure);

// The [number]th call from now on fails, counted from 1.
void
coronet_fail_call(long number)
{
    calls_left = number;
    was_reached = false;
}

// No call fails any more. Says whether one has.
int
coronet_allow_calls(void)
{
    calls_left = 0;
    return was_reached;
}

// How many blocks of the C library's we hold.
long
coronet_live_blocks(void)
{
    return live_blocks;
}

// For a process that ends without atexit functions.
void
coronet_write_counters(void)
{
    __gcov_dump();
}

int
coronet_decide_call(int failure)
{
    if (calls_left == 0 || --calls_left > 0) {
        return OUTCOME_NORMAL;
    }
    was_reached = true;
    if (failure == OUTCOME_FAILURE) {
        errno = ENOMEM;
    }
    else {
        PyErr_NoMemory();
    }
    return failure;
}

#if defined(__x86_64__) && defined(__linux__)

// [result] is what the instruction leaves in the register of results.
#define TRAMPOLINE(name, failure, result)                                                \
    __asm__(".pushsection .text\n"                                                       \
            ".globl __wrap_" #name "\n"                                                  \
            ".hidden __wrap_" #name "\n"                                                 \
            ".type __wrap_" #name ", @function\n"                                        \
            "__wrap_" #name ":\n"                                                        \
            "    endbr64\n"                                                              \
            "    push %rdi\n push %rsi\n push %rdx\n push %rcx\n push %r8\n push %r9\n"  \
            "    push %rax\n"                                                            \
            "    sub $64, %rsp\n"                                                        \
            "    movsd %xmm0, (%rsp)\n movsd %xmm1, 8(%rsp)\n"                           \
            "    movsd %xmm2, 16(%rsp)\n movsd %xmm3, 24(%rsp)\n"                        \
            "    movsd %xmm4, 32(%rsp)\n movsd %xmm5, 40(%rsp)\n"                        \
            "    movsd %xmm6, 48(%rsp)\n movsd %xmm7, 56(%rsp)\n"                        \
            "    mov $" #failure ", %edi\n"                                              \
            "    call coronet_decide_call\n"                                             \
            "    mov %eax, %r11d\n"                                                      \
            "    movsd (%rsp), %xmm0\n movsd 8(%rsp), %xmm1\n"                           \
            "    movsd 16(%rsp), %xmm2\n movsd 24(%rsp), %xmm3\n"                        \
            "    movsd 32(%rsp), %xmm4\n movsd 40(%rsp), %xmm5\n"                        \
            "    movsd 48(%rsp), %xmm6\n movsd 56(%rsp), %xmm7\n"                        \
            "    add $64, %rsp\n"                                                        \
            "    pop %rax\n"                                                             \
            "    pop %r9\n pop %r8\n pop %rcx\n pop %rdx\n pop %rsi\n pop %rdi\n"        \
            "    test %r11d, %r11d\n"                                                    \
            "    jne 1f\n"                                                               \
            "    jmp __real_" #name "@PLT\n"                                             \
            "1:  " result "\n"                                                           \
            "    ret\n"                                                                  \
            ".size __wrap_" #name ", . - __wrap_" #name "\n"                             \
            ".popsection\n")

#define FAILS_WITHOUT_ERROR(name) TRAMPOLINE(name, 1, "xor %eax, %eax")
#define FAILS_WITH_NULL(name) TRAMPOLINE(name, 2, "xor %eax, %eax")
#define FAILS_WITH_MINUS_1(name) TRAMPOLINE(name, 2, "mov $-1, %rax")
#define FAILS_WITH_ENOMEM(name) TRAMPOLINE(name, 1, "mov $-12, %rax")
#define FAILS_WITH_MINUS_1_0(name)                                                       \
    TRAMPOLINE(name, 2, "mov $-1, %rax\n cvtsi2sd %rax, %xmm0")

// These leave something in an argument too, or are counted.
#define FAILS_BY_FUNCTION(name) _Static_assert(sizeof(&__wrap_##name) > 0, #name)

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void __real_free(void *block);
int __real_PyObject_GetBuffer(PyObject *object, Py_buffer *view, int flags);
int __real__PyBytes_Resize(PyObject **bytes, Py_ssize_t size);
PyObject *__real_Py_VaBuildValue(const char *format, va_list values);
void __real__exit(int status);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);
void __wrap_free(void *block);
void __wrap__exit(int status);
int __wrap_PyObject_GetBuffer(PyObject *object, Py_buffer *view, int flags);
int __wrap__PyBytes_Resize(PyObject **bytes, Py_ssize_t size);
PyObject *__wrap_Py_VaBuildValue(const char *format, va_list values);
PyObject *__wrap_Py_BuildValue(const char *format, ...);

void *
__wrap_malloc(size_t size)
{
    void *block = coronet_decide_call(OUTCOME_FAILURE) ? NULL : __real_malloc(size);
    live_blocks += block != NULL;
    return block;
}

void *
__wrap_calloc(size_t count, size_t size)
{
    void *block =
        coronet_decide_call(OUTCOME_FAILURE) ? NULL : __real_calloc(count, size);
    live_blocks += block != NULL;
    return block;
}

void *
__wrap_realloc(void *block, size_t size)
{
    bool is_new = block == NULL;
    void *moved =
        coronet_decide_call(OUTCOME_FAILURE) ? NULL : __real_realloc(block, size);
    live_blocks += is_new && moved != NULL;
    return moved;
}

void
__wrap_free(void *block)
{
    live_blocks -= block != NULL;
    __real_free(block);
}

void
__wrap__exit(int status)
{
    coronet_write_counters();
    __real__exit(status);
}

int
__wrap_PyObject_GetBuffer(PyObject *object, Py_buffer *view, int flags)
{
    if (coronet_decide_call(OUTCOME_ERROR) == OUTCOME_NORMAL) {
        return __real_PyObject_GetBuffer(object, view, flags);
    }
    view->obj = NULL;
    return -1;
}

int
__wrap__PyBytes_Resize(PyObject **bytes, Py_ssize_t size)
{
    if (coronet_decide_call(OUTCOME_ERROR) == OUTCOME_NORMAL) {
        return __real__PyBytes_Resize(bytes, size);
    }
    Py_CLEAR(*bytes);
    return -1;
}

// References that the format gives away are taken in any case.
PyObject *
__wrap_Py_VaBuildValue(const char *format, va_list values)
{
    PyObject *value = __real_Py_VaBuildValue(format, values);
    if (coronet_decide_call(OUTCOME_ERROR) != OUTCOME_NORMAL) {
        PyObject *type, *error, *traceback;
        PyErr_Fetch(&type, &error, &traceback);
        Py_CLEAR(value);
        PyErr_Restore(type, error, traceback);
    }
    return value;
}

PyObject *
__wrap_Py_BuildValue(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    PyObject *value = __wrap_Py_VaBuildValue(format, values);
    va_end(values);
    return value;
}

// There are always objects for small numbers, and callers rely on it.
#define NUMBER_FUNCTION(name, c_type)                                                    \
    PyObject *__real_##name(c_type number);                                              \
    PyObject *__wrap_##name(c_type number);                                              \
    PyObject *__wrap_##name(c_type number)                                               \
    {                                                                                    \
        bool is_small = (long long)number >= -5 && (long long)number <= 256;             \
        bool fails = !is_small && coronet_decide_call(OUTCOME_ERROR);                    \
        return fails ? NULL : __real_##name(number);                                     \
    }

NUMBER_FUNCTION(PyLong_FromLong, long)
NUMBER_FUNCTION(PyLong_FromLongLong, long long)
NUMBER_FUNCTION(PyLong_FromSize_t, size_t)
NUMBER_FUNCTION(PyLong_FromSsize_t, Py_ssize_t)
NUMBER_FUNCTION(PyLong_FromUnsignedLong, unsigned long)
NUMBER_FUNCTION(PyLong_FromUnsignedLongLong, unsigned long long)

// setup.py reads the names from here.

FAILS_BY_FUNCTION(malloc);
FAILS_BY_FUNCTION(calloc);
FAILS_BY_FUNCTION(realloc);
FAILS_BY_FUNCTION(free);
FAILS_BY_FUNCTION(_exit); // which does not fail, but writes the counters first
FAILS_BY_FUNCTION(PyObject_GetBuffer);
FAILS_BY_FUNCTION(_PyBytes_Resize);
FAILS_BY_FUNCTION(PyLong_FromLong);
FAILS_BY_FUNCTION(PyLong_FromLongLong);
FAILS_BY_FUNCTION(PyLong_FromSize_t);
FAILS_BY_FUNCTION(PyLong_FromSsize_t);
FAILS_BY_FUNCTION(PyLong_FromUnsignedLong);
FAILS_BY_FUNCTION(PyLong_FromUnsignedLongLong);
FAILS_BY_FUNCTION(Py_BuildValue);
FAILS_BY_FUNCTION(Py_VaBuildValue);

FAILS_WITHOUT_ERROR(PyMem_Malloc);
FAILS_WITHOUT_ERROR(PyMem_Calloc);
FAILS_WITHOUT_ERROR(PyMem_Realloc);
FAILS_WITHOUT_ERROR(PyThreadState_GetDict);

FAILS_WITH_NULL(PyArg_ParseTuple);
FAILS_WITH_NULL(PyArg_ParseTupleAndKeywords);
FAILS_WITH_NULL(PyBytes_FromObject);
FAILS_WITH_NULL(PyBytes_FromStringAndSize);
FAILS_WITH_NULL(PyCMethod_New);
FAILS_WITH_NULL(PyCapsule_New);
FAILS_WITH_NULL(PyContext_CopyCurrent);
FAILS_WITH_NULL(PyDict_GetItemWithError);
FAILS_WITH_NULL(PyDict_New);
FAILS_WITH_NULL(PyFloat_FromDouble);
FAILS_WITH_NULL(PyImport_ImportModule);
FAILS_WITH_NULL(PyList_AsTuple);
FAILS_WITH_NULL(PyList_New);
FAILS_WITH_NULL(PyMemoryView_FromObject);
FAILS_WITH_NULL(PyNumber_Index);
FAILS_WITH_NULL(PyNumber_Remainder);
FAILS_WITH_NULL(PyObject_Call);
FAILS_WITH_NULL(PyObject_CallFunction);
FAILS_WITH_NULL(PyObject_CallFunctionObjArgs);
FAILS_WITH_NULL(PyObject_CallMethod);
FAILS_WITH_NULL(PyObject_CallNoArgs);
FAILS_WITH_NULL(PyObject_CallObject);
FAILS_WITH_NULL(PyObject_CallOneArg);
FAILS_WITH_NULL(PyObject_GenericGetAttr);
FAILS_WITH_NULL(PyObject_GetAttr);
FAILS_WITH_NULL(PyObject_GetAttrString);
FAILS_WITH_NULL(PyObject_Vectorcall);
FAILS_WITH_NULL(PyObject_VectorcallMethod);
FAILS_WITH_NULL(PySequence_Fast);
FAILS_WITH_NULL(PySequence_GetItem);
FAILS_WITH_NULL(PySequence_GetSlice);
FAILS_WITH_NULL(PySequence_Tuple);
FAILS_WITH_NULL(PyTuple_New);
FAILS_WITH_NULL(PyTuple_Pack);
FAILS_WITH_NULL(PyType_GenericNew);
FAILS_WITH_NULL(PyUnicode_AsUTF8);
FAILS_WITH_NULL(PyUnicode_AsUTF8AndSize);
FAILS_WITH_NULL(PyUnicode_DecodeASCII);
FAILS_WITH_NULL(PyUnicode_DecodeFSDefault);
FAILS_WITH_NULL(PyUnicode_DecodeFSDefaultAndSize);
FAILS_WITH_NULL(PyUnicode_EncodeFSDefault);
FAILS_WITH_NULL(PyUnicode_FromFormat);
FAILS_WITH_NULL(PyUnicode_FromFormatV);
FAILS_WITH_NULL(PyUnicode_FromString);
FAILS_WITH_NULL(PyUnicode_FromStringAndSize);
FAILS_WITH_NULL(PyUnicode_Join);
FAILS_WITH_NULL(_PyObject_GC_New);

FAILS_WITH_MINUS_1(PyContext_Enter);
FAILS_WITH_MINUS_1(PyDict_DelItem);
FAILS_WITH_MINUS_1(PyDict_DelItemString);
FAILS_WITH_MINUS_1(PyDict_SetItem);
FAILS_WITH_MINUS_1(PyDict_SetItemString);
FAILS_WITH_MINUS_1(PyErr_ResourceWarning);
FAILS_WITH_MINUS_1(PyList_Append);
FAILS_WITH_MINUS_1(PyObject_AsFileDescriptor);
FAILS_WITH_MINUS_1(PyObject_GenericSetAttr);
FAILS_WITH_MINUS_1(PyObject_IsInstance);
FAILS_WITH_MINUS_1(PyObject_RichCompareBool);
FAILS_WITH_MINUS_1(PyObject_SetAttrString);

FAILS_WITH_MINUS_1_0(PyFloat_AsDouble);

// Our own.

FAILS_WITH_ENOMEM(byte_block_append);
FAILS_WITH_ENOMEM(io_describe);
FAILS_WITH_ENOMEM(io_socket_family);
FAILS_WITH_ENOMEM(line_buffer_append);
FAILS_WITH_ENOMEM(line_buffer_prepend);
FAILS_WITH_ENOMEM(reactor_claim);
FAILS_WITH_ENOMEM(reactor_register);
FAILS_WITH_ENOMEM(write_queue_append);
FAILS_WITH_ENOMEM(write_queue_copy);
FAILS_WITH_ENOMEM(write_queue_keep_copy);

FAILS_WITH_NULL(greenlet_new);
FAILS_WITH_NULL(hub_get);

FAILS_WITH_MINUS_1(hub_park);
FAILS_WITH_MINUS_1(hub_wait_for_end);
FAILS_WITH_MINUS_1(hub_yield);

#endif
