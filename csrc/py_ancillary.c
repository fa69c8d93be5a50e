// py_ancillary.c: ancillary data, between Python's lists and the kernel's headers.
//
// Called by recvmsg and sendmsg, before and after they park. A header may claim more than
// there is, for the kernel cuts ancillary data off where the room ends; so no length is
// believed before it was compared with the end of the buffer.
//
// Not here: the message itself, its bytes and its address.

#include "py_ancillary.h"

#include <limits.h>
#include <string.h>

#include "nonblocking_io.h"
#include "py_convert.h"

// --- To Python --------------------------------------------------------------------------

void
ancillary_close_descriptors(struct msghdr *message)
{
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header != NULL;
         header = CMSG_NXTHDR(message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t length = io_ancillary_length(message, header);
        for (size_t at = 0; at + sizeof(int) <= length; at += sizeof(int)) {
            int fd;
            memcpy(&fd, CMSG_DATA(header) + at, sizeof(fd));
            (void)io_close(fd);
        }
    }
}

PyObject *
ancillary_to_python(struct msghdr *message)
{
    PyObject *list = PyList_New(0);
    if (list == NULL) {
        return NULL;
    }
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header != NULL;
         header = CMSG_NXTHDR(message, header)) {
        // "N" takes the reference, and passes a NULL on with its exception.
        PyObject *item = Py_BuildValue(
            "(iiN)", header->cmsg_level, header->cmsg_type,
            PyBytes_FromStringAndSize((const char *)CMSG_DATA(header),
                                      (Py_ssize_t)io_ancillary_length(message, header)));
        if (append_item(list, item) < 0) {
            Py_DECREF(list);
            return NULL;
        }
    }
    return list;
}

// --- From Python ------------------------------------------------------------------------

// Adds one item to the [*size] bytes of ancillary data in [*control]. 0, or -1 with an
// exception.
static int
add_ancillary(int level, int type, const Py_buffer *view, char **control, size_t *size)
{
    size_t limit = (size_t)INT_MAX - *size;
    if ((size_t)view->len > limit || CMSG_SPACE((size_t)view->len) > limit) {
        PyErr_SetString(PyExc_ValueError, "the ancillary data is too large");
        return -1;
    }
    size_t space = CMSG_SPACE((size_t)view->len);
    char *larger = PyMem_Realloc(*control, *size + space);
    if (larger == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    // The padding would show what was in our memory.
    memset(larger + *size, 0, space);
    struct cmsghdr *header = (struct cmsghdr *)(void *)(larger + *size);
    header->cmsg_level = level;
    header->cmsg_type = type;
    header->cmsg_len = (__typeof__(header->cmsg_len))CMSG_LEN((size_t)view->len);
    if (view->len > 0) {
        memcpy(CMSG_DATA(header), view->buf, (size_t)view->len);
    }
    *control = larger;
    *size += space;
    return 0;
}

static int
add_ancillary_item(PyObject *item, char **control, size_t *size)
{
    int level;
    int type;
    if (!PyTuple_Check(item) || PyTuple_GET_SIZE(item) != 3) {
        PyErr_SetString(PyExc_TypeError,
                        "an item of ancdata must be a tuple (level, type, data)");
        return -1;
    }
    if (convert_int(PyTuple_GET_ITEM(item, 0), "cmsg_level", 0, &level) < 0 ||
        convert_int(PyTuple_GET_ITEM(item, 1), "cmsg_type", 0, &type) < 0) {
        return -1;
    }
    Py_buffer view;
    if (PyObject_GetBuffer(PyTuple_GET_ITEM(item, 2), &view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    int error = add_ancillary(level, type, &view, control, size);
    PyBuffer_Release(&view);
    return error;
}

int
ancillary_from_python(PyObject *ancdata, char **control, size_t *size)
{
    PyObject *items = PySequence_Tuple(ancdata);
    if (items == NULL) {
        return -1;
    }
    int error = 0;
    for (Py_ssize_t i = 0; error == 0 && i < PyTuple_GET_SIZE(items); i++) {
        error = add_ancillary_item(PyTuple_GET_ITEM(items, i), control, size);
    }
    Py_DECREF(items);
    return error;
}
