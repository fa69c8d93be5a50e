// py_address.c: socket addresses, between Python's forms and the kernel's.
//
// Called by whatever takes or gives an address: connect, accept, sendto, getpeername.
// Invariants: only resolve() may switch, and it is called with nothing but Python
// objects at hand; what it returns is converted without a second look-up, so a resolver
// that answers with a name gets an error instead of a loop.
//
// Not here: looking names up, and families other than the internet's and Unix's.

#include "py_address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>

#include "py_convert.h"

#define PATH_OFFSET offsetof(struct sockaddr_un, sun_path)
#define PATH_ROOM sizeof(((struct sockaddr_un *)0)->sun_path)

#define MAX_PORT 65535
#define MAX_FLOW_INFO 0xfffff // 20 bits of the IPv6 header

// --- To Python --------------------------------------------------------------------------

// Appends a number of at most three digits; returns the place behind it.
static char *
append_octet(char *place, unsigned octet)
{
    if (octet >= 100) {
        *place++ = (char)('0' + octet / 100);
    }
    if (octet >= 10) {
        *place++ = (char)('0' + octet / 10 % 10);
    }
    *place++ = (char)('0' + octet % 10);
    return place;
}

// By hand, for inet_ntop() and Py_BuildValue() would be a tenth of what accepting costs us.
static PyObject *
internet_to_python(const struct sockaddr_in *address)
{
    char host[INET_ADDRSTRLEN];
    char *end = host;
    uint32_t number = ntohl(address->sin_addr.s_addr);
    for (int shift = 24; shift >= 0; shift -= 8) {
        end = append_octet(end, number >> shift & 0xff);
        *end++ = '.';
    }
    PyObject *items[] = {PyUnicode_FromStringAndSize(host, end - 1 - host),
                         PyLong_FromLong(ntohs(address->sin_port))};
    PyObject *tuple =
        items[0] == NULL || items[1] == NULL ? NULL : PyTuple_Pack(2, items[0], items[1]);
    Py_XDECREF(items[0]);
    Py_XDECREF(items[1]);
    return tuple;
}

static PyObject *
internet6_to_python(const struct sockaddr_in6 *address)
{
    char host[INET6_ADDRSTRLEN];
    (void)inet_ntop(AF_INET6, &address->sin6_addr, host, sizeof(host));
    return Py_BuildValue("(siII)", host, (int)ntohs(address->sin6_port),
                         (unsigned)ntohl(address->sin6_flowinfo),
                         (unsigned)address->sin6_scope_id);
}

static PyObject *
unix_to_python(const struct sockaddr_un *address, socklen_t length)
{
    if (length <= PATH_OFFSET) {
        return PyUnicode_FromString(""); // a socket without a name
    }
    const char *path = address->sun_path;
    size_t path_length = length - PATH_OFFSET;
#if defined(__linux__)
    bool is_abstract = path[0] == '\0';
#else
    // Elsewhere a name that begins with NUL is an empty one, padded.
    bool is_abstract = false;
#endif
    if (!is_abstract) {
        path_length = strnlen(path, path_length);
    }
    return PyUnicode_DecodeFSDefaultAndSize(path, (Py_ssize_t)path_length);
}

PyObject *
address_to_python(const struct sockaddr *address, socklen_t length)
{
    // Too short for a family is as good as nothing: recvmsg on a stream says 0.
    if (length < offsetof(struct sockaddr, sa_data)) {
        Py_RETURN_NONE;
    }
    // The kernel tells how long the address is, even if it had to cut it off: the path of
    // a Unix socket may be longer on macOS than sun_path.
    if (length > sizeof(struct sockaddr_storage)) {
        length = sizeof(struct sockaddr_storage); // not reached: no kernel does
    }
    switch (address->sa_family) {
    case AF_INET:
        return internet_to_python((const struct sockaddr_in *)(const void *)address);
    case AF_INET6:
        return internet6_to_python((const struct sockaddr_in6 *)(const void *)address);
    case AF_UNIX:
        return unix_to_python((const struct sockaddr_un *)(const void *)address, length);
    default:
        Py_RETURN_NONE;
    }
}

// --- From Python: numbers ---------------------------------------------------------------

// An int from 0 to [greatest]; 0, or -1 with a TypeError or an OverflowError.
static int
convert_unsigned(PyObject *number, const char *name, unsigned long greatest,
                 unsigned long *value)
{
    PyObject *index = PyNumber_Index(number);
    if (index == NULL) {
        if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Format(PyExc_TypeError, "%s must be an int, not %s", name,
                         Py_TYPE(number)->tp_name);
        }
        return -1;
    }
    *value = PyLong_AsUnsignedLong(index); // negative numbers overflow, too
    Py_DECREF(index);
    bool is_out = *value == (unsigned long)-1 && PyErr_Occurred();
    if (is_out || *value > greatest) {
        PyErr_Clear();
        PyErr_Format(PyExc_OverflowError, "%s must be from 0 to %lu", name, greatest);
        return -1;
    }
    return 0;
}

// --- From Python: hosts -----------------------------------------------------------------

enum host_status {
    HOST_DONE,    // converted
    HOST_IS_NAME, // not numeric: somebody has to look it up
};

static enum host_status
convert_internet_host(const char *host, struct sockaddr_in *address)
{
    if (host[0] == '\0') {
        address->sin_addr.s_addr = htonl(INADDR_ANY);
        return HOST_DONE;
    }
    if (strcmp(host, "<broadcast>") == 0) {
        address->sin_addr.s_addr = htonl(INADDR_BROADCAST);
        return HOST_DONE;
    }
    return inet_pton(AF_INET, host, &address->sin_addr) == 1 ? HOST_DONE : HOST_IS_NAME;
}

static enum host_status
convert_internet6_host(const char *host, struct sockaddr_in6 *address)
{
    if (host[0] == '\0') {
        address->sin6_addr = in6addr_any;
        return HOST_DONE;
    }
    // "fe80::1%eth0": the interface is no part of what inet_pton() reads.
    char numeric[INET6_ADDRSTRLEN];
    size_t length = strcspn(host, "%");
    if (length >= sizeof(numeric)) {
        return HOST_IS_NAME;
    }
    memcpy(numeric, host, length);
    numeric[length] = '\0';
    if (inet_pton(AF_INET6, numeric, &address->sin6_addr) != 1) {
        return HOST_IS_NAME;
    }
    if (host[length] == '\0') {
        return HOST_DONE;
    }
    // An interface given by its number, or one that is not there, goes to the resolver.
    address->sin6_scope_id = if_nametoindex(host + length + 1);
    return address->sin6_scope_id != 0 ? HOST_DONE : HOST_IS_NAME;
}

// The host as text, str or bytes in. A new reference, NULL with an exception.
static PyObject *
host_as_text(PyObject *host)
{
    if (PyUnicode_Check(host)) {
        return Py_NewRef(host);
    }
    if (PyBytes_Check(host)) {
        return PyUnicode_DecodeASCII(PyBytes_AS_STRING(host), PyBytes_GET_SIZE(host),
                                     "strict");
    }
    PyErr_Format(PyExc_TypeError, "host must be str or bytes, not %s",
                 Py_TYPE(host)->tp_name);
    return NULL;
}

// Converts [host] if it is numeric: an enum host_status, or -1 with an exception.
static int
convert_host(PyObject *host, struct sockaddr_storage *storage)
{
    Py_ssize_t length;
    const char *text = PyUnicode_AsUTF8AndSize(host, &length);
    if (text == NULL) {
        return -1;
    }
    if (strlen(text) != (size_t)length) {
        PyErr_SetString(PyExc_ValueError, "host must not contain a null character");
        return -1;
    }
    if (storage->ss_family == AF_INET) {
        return (int)convert_internet_host(text, (struct sockaddr_in *)(void *)storage);
    }
    return (int)convert_internet6_host(text, (struct sockaddr_in6 *)(void *)storage);
}

// --- From Python: the forms -------------------------------------------------------------

// The tuple's numbers into [storage], whose family is set; the host stays.
static int
convert_internet_numbers(PyObject *address, struct sockaddr_storage *storage)
{
    unsigned long port;
    if (convert_unsigned(PyTuple_GET_ITEM(address, 1), "port", MAX_PORT, &port) < 0) {
        return -1;
    }
    if (storage->ss_family == AF_INET) {
        ((struct sockaddr_in *)(void *)storage)->sin_port = htons((uint16_t)port);
        return 0;
    }
    struct sockaddr_in6 *internet6 = (struct sockaddr_in6 *)(void *)storage;
    internet6->sin6_port = htons((uint16_t)port);
    unsigned long flow_info = 0;
    unsigned long scope_id = 0;
    Py_ssize_t count = PyTuple_GET_SIZE(address);
    if (count > 2 && convert_unsigned(PyTuple_GET_ITEM(address, 2), "flowinfo",
                                      MAX_FLOW_INFO, &flow_info) < 0) {
        return -1;
    }
    if (count > 3 && convert_unsigned(PyTuple_GET_ITEM(address, 3), "scope_id",
                                      UINT32_MAX, &scope_id) < 0) {
        return -1;
    }
    internet6->sin6_flowinfo = htonl((uint32_t)flow_info);
    // A 0 does not undo what the host itself says behind a percent sign.
    if (scope_id != 0) {
        internet6->sin6_scope_id = (uint32_t)scope_id;
    }
    return 0;
}

static int
check_internet_form(PyObject *address, int family)
{
    bool is_internet6 = family == AF_INET6;
    if (!PyTuple_Check(address)) {
        PyErr_Format(PyExc_TypeError, "an %s address must be a tuple, not %s",
                     is_internet6 ? "AF_INET6" : "AF_INET", Py_TYPE(address)->tp_name);
        return -1;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(address);
    if (count < 2 || count > (is_internet6 ? 4 : 2)) {
        PyErr_SetString(
            PyExc_TypeError,
            is_internet6
                ? "an AF_INET6 address must be (host, port[, flowinfo[, scope_id]])"
                : "an AF_INET address must be (host, port)");
        return -1;
    }
    return 0;
}

// Converts a tuple whose host, [host], is text. An enum host_status, -1 with an exception.
static int
convert_internet(PyObject *address, PyObject *host, int family,
                 struct sockaddr_storage *storage, socklen_t *length)
{
    memset(storage, 0, sizeof(*storage));
    storage->ss_family = (sa_family_t)family;
    *length =
        family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    int status = convert_host(host, storage);
    if (status < 0 || convert_internet_numbers(address, storage) < 0) {
        return -1;
    }
    return status;
}

// What the resolver says for a tuple that convert_internet() has found to be in order.
// A new reference, NULL with an exception. May switch.
static PyObject *
resolve_host(struct module_state *state, PyObject *address, PyObject *host, int family,
             int type)
{
    if (state->resolve == NULL) {
        // not reached: the package sets it as it is imported
        PyErr_Format(PyExc_ValueError, "%R is no numeric address of the socket's family",
                     host);
        return NULL;
    }
    PyObject *resolve = Py_NewRef(state->resolve);
    PyObject *found = PyObject_CallFunction(resolve, "OOii", host,
                                            PyTuple_GET_ITEM(address, 1), family, type);
    Py_DECREF(resolve);
    if (found != NULL && check_internet_form(found, family) < 0) {
        Py_CLEAR(found);
    }
    return found;
}

static int
internet_from_python(struct module_state *state, PyObject *address, int family, int type,
                     struct sockaddr_storage *storage, socklen_t *length)
{
    if (check_internet_form(address, family) < 0) {
        return -1;
    }
    PyObject *found = NULL;
    PyObject *found_host = NULL;
    PyObject *host = host_as_text(PyTuple_GET_ITEM(address, 0));
    int status =
        host == NULL ? -1 : convert_internet(address, host, family, storage, length);
    if (status == HOST_IS_NAME) {
        status = -1;
        found = resolve_host(state, address, host, family, type);
        if (found != NULL) {
            found_host = host_as_text(PyTuple_GET_ITEM(found, 0));
        }
        if (found_host != NULL) {
            status = convert_internet(found, found_host, family, storage, length);
        }
        if (status == HOST_DONE && convert_internet_numbers(address, storage) < 0) {
            // The port and the scope that the caller gave count more than what was found.
            status = -1;
        }
        if (status == HOST_IS_NAME) {
            PyErr_Format(PyExc_ValueError, "%R was resolved to %R, which is not numeric",
                         host, found_host);
            status = -1;
        }
    }
    Py_XDECREF(found_host);
    Py_XDECREF(found);
    Py_XDECREF(host);
    return status;
}

static int
convert_path(const char *path, size_t path_length, struct sockaddr_storage *storage,
             socklen_t *length)
{
#if defined(__linux__)
    // Abstract, or empty: then bind() chooses an abstract name.
    bool is_abstract = path_length == 0 || path[0] == '\0';
#else
    bool is_abstract = false;
#endif
    if (path_length > PATH_ROOM - (is_abstract ? 0 : 1)) {
        PyErr_Format(PyExc_ValueError, "an AF_UNIX path has at most %zu bytes, not %zu",
                     PATH_ROOM - (is_abstract ? 0 : 1), path_length);
        return -1;
    }
    if (!is_abstract && memchr(path, '\0', path_length) != NULL) {
        PyErr_SetString(PyExc_ValueError, "an AF_UNIX path must not contain a null byte");
        return -1;
    }
    struct sockaddr_un *address = (struct sockaddr_un *)(void *)storage;
    memset(storage, 0, sizeof(*storage));
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, path_length);
    // The NUL that ends a path counts; in an abstract name every byte does.
    *length = (socklen_t)(PATH_OFFSET + path_length + (is_abstract ? 0 : 1));
    return 0;
}

static int
unix_from_python(PyObject *address, struct sockaddr_storage *storage, socklen_t *length)
{
    PyObject *path; // bytes
    if (PyUnicode_Check(address)) {
        path = PyUnicode_EncodeFSDefault(address);
        if (path == NULL) {
            return -1;
        }
    }
    else if (PyBytes_Check(address)) {
        path = Py_NewRef(address);
    }
    else {
        PyErr_Format(PyExc_TypeError, "an AF_UNIX address must be str or bytes, not %s",
                     Py_TYPE(address)->tp_name);
        return -1;
    }
    int status = convert_path(PyBytes_AS_STRING(path), (size_t)PyBytes_GET_SIZE(path),
                              storage, length);
    Py_DECREF(path);
    return status;
}

int
address_from_python(struct module_state *state, PyObject *address, int family, int type,
                    struct sockaddr_storage *storage, socklen_t *length)
{
    switch (family) {
    case AF_INET:
    case AF_INET6:
        return internet_from_python(state, address, family, type, storage, length);
    case AF_UNIX:
        return unix_from_python(address, storage, length);
    default:
        raise_errno(-EAFNOSUPPORT);
        return -1;
    }
}
