"""What each system call may fail with: the ERRORS of POSIX and of Linux' manual pages."""

from __future__ import annotations

import errno

__all__ = ["BYTES", "CALLS", "CANNOT_FAIL", "ERRNOS", "SHORTAGES", "is_passing"]

# Reading from and writing to descriptors of any kind: the same causes for every call.
_READ = "EAGAIN EBADF EFAULT EINTR EINVAL EIO EISDIR ECONNRESET ENOBUFS ENOMEM ENXIO ETIMEDOUT"
_RECEIVE = (
    "EAGAIN EBADF ECONNREFUSED ECONNRESET EFAULT EINTR EINVAL EIO ENOBUFS ENOMEM ENOTCONN "
    "ENOTSOCK EOPNOTSUPP ETIMEDOUT"
)
_WRITE = (
    "EAGAIN EBADF EDESTADDRREQ EDQUOT EFAULT EFBIG EINTR EINVAL EIO ENOSPC EPERM EPIPE "
    "ECONNRESET ENETDOWN ENETUNREACH ENOBUFS ENXIO"
)
_SEND = (
    "EACCES EAGAIN EALREADY EBADF ECONNRESET EDESTADDRREQ EFAULT EINTR EINVAL EIO EISCONN "
    "EMSGSIZE ENETDOWN ENETUNREACH EHOSTUNREACH ENOBUFS ENOMEM ENOTCONN ENOTSOCK EOPNOTSUPP "
    "EPIPE EAFNOSUPPORT ELOOP ENAMETOOLONG ENOENT ENOTDIR"
)
_NAME = "EBADF EFAULT EINVAL ENOBUFS ENOTSOCK EOPNOTSUPP"
_OPTION = "EBADF EDOM EFAULT EINVAL EISCONN ENOBUFS ENOMEM ENOPROTOOPT ENOTSOCK EACCES"
_DESCRIPTORS = "EMFILE ENFILE"

_TEXT = {
    "accept4": (
        "EAGAIN EBADF ECONNABORTED EFAULT EINTR EINVAL EMFILE ENFILE ENOBUFS ENOMEM ENOTSOCK "
        "EOPNOTSUPP EPERM EPROTO ENETDOWN ENOPROTOOPT EHOSTDOWN ENONET EHOSTUNREACH "
        "ENETUNREACH ENOSR ESOCKTNOSUPPORT EPROTONOSUPPORT ETIMEDOUT"
    ),
    "bind": (
        "EACCES EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EBADF EFAULT EINVAL EISCONN ELOOP "
        "ENAMETOOLONG ENOBUFS ENOENT ENOMEM ENOTDIR ENOTSOCK EOPNOTSUPP EROFS"
    ),
    "close": "EBADF EDQUOT EINTR EIO ENOSPC",
    "connect": (
        "EACCES EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EAGAIN EALREADY EBADF ECONNREFUSED "
        "ECONNRESET EFAULT EHOSTUNREACH EINPROGRESS EINTR EINVAL EIO EISCONN ELOOP "
        "ENAMETOOLONG ENETDOWN ENETUNREACH ENOBUFS ENOENT ENOTDIR ENOTSOCK EOPNOTSUPP EPERM "
        "EPROTOTYPE ETIMEDOUT"
    ),
    "dup": f"EBADF EINTR ENOMEM {_DESCRIPTORS}",
    "epoll_create1": f"EINVAL ENOMEM {_DESCRIPTORS}",
    "epoll_ctl": "EBADF EEXIST EINVAL ELOOP ENOENT ENOMEM ENOSPC EPERM",
    "epoll_wait": "EBADF EFAULT EINTR EINVAL",
    "eventfd": f"EINVAL ENODEV ENOMEM {_DESCRIPTORS}",
    "fcntl": f"EACCES EAGAIN EBADF EDEADLK EFAULT EINVAL ENOLCK EPERM {_DESCRIPTORS}",
    "fstat": "EBADF EFAULT EIO ENOMEM EOVERFLOW",
    "getpeername": f"{_NAME} ENOTCONN",
    "getsockname": _NAME,
    "getsockopt": _OPTION,
    "if_nametoindex": "ENODEV ENXIO",
    "ioctl": "EBADF EFAULT EINVAL ENOTTY",
    "listen": "EACCES EADDRINUSE EBADF EDESTADDRREQ EINVAL ENOBUFS ENOTSOCK EOPNOTSUPP",
    "lseek": "EBADF EINVAL ENXIO EOVERFLOW ESPIPE",
    "pipe": f"EFAULT ENOMEM {_DESCRIPTORS}",
    "pipe2": f"EFAULT EINVAL ENOMEM {_DESCRIPTORS}",
    "poll": "EAGAIN EFAULT EINTR EINVAL ENOMEM",
    "pread": f"{_READ} EOVERFLOW ESPIPE",
    "pthread_getcpuclockid": "ENOENT ESRCH",
    "read": _READ,
    "recv": _RECEIVE,
    "recvmsg": f"{_RECEIVE} EMSGSIZE",
    "send": _SEND,
    "sendfile": "EAGAIN EBADF EFAULT EINTR EINVAL EIO ENOMEM EOVERFLOW ESPIPE EPIPE ECONNRESET",
    "sendmsg": _SEND,
    "setsockopt": _OPTION,
    "shutdown": "EBADF EINVAL ENOBUFS ENOTCONN ENOTSOCK",
    "sigpending": "EFAULT",
    "sigtimedwait": "EAGAIN EINTR EINVAL",
    "socket": (
        f"EACCES EAFNOSUPPORT EINVAL ENOBUFS ENOMEM EPROTONOSUPPORT EPROTOTYPE {_DESCRIPTORS}"
    ),
    "socketpair": f"EACCES EAFNOSUPPORT EFAULT ENOMEM EOPNOTSUPP {_DESCRIPTORS}",
    "syscall": f"EINVAL ENODEV ENOMEM ENOSYS EPERM ESRCH {_DESCRIPTORS}",  # pidfd_open
    "unlink": "EACCES EBUSY EIO EISDIR ELOOP ENOENT ENOMEM ENOTDIR EPERM EROFS",
    "waitid": "ECHILD EINTR EINVAL",
    "waitpid": "ECHILD EINTR EINVAL",
    "write": _WRITE,
    "writev": _WRITE,
}

ERRNOS = {
    name: tuple(dict.fromkeys(getattr(errno, error) for error in text.split()))
    for name, text in _TEXT.items()
}

# Those that move bytes, so that they can move fewer.
BYTES = frozenset(
    ["pread", "read", "recv", "recvmsg", "send", "sendfile", "sendmsg", "write", "writev"]
)

# After these accepting is tried again in a while, so they must not go on for ever.
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

# These are of the connection that was to be accepted; the next one may be well.
FAILURES_OF_PEER = frozenset(
    getattr(errno, name)
    for name in [
        "ECONNABORTED",
        "EPROTO",
        "ENETDOWN",
        "ENOPROTOOPT",
        "EHOSTDOWN",
        "ENONET",
        "EHOSTUNREACH",
        "ENETUNREACH",
        "EOPNOTSUPP",
    ]
)

# Names of the C library's of which the interposer has another one.
CALLS = {
    "fcntl64": "fcntl",
    "fstat64": "fstat",
    "lseek64": "lseek",
    "pread64": "pread",
    "sendfile64": "sendfile",
}

_MEMORY = "memory: tests/unit/test_no_memory.py"
_TEXT_OR_BYTES = "computes: text and bytes"
_COMPILER = "called by what the compiler adds"

# Imported by the extension and not stood in for, with the reason.
CANNOT_FAIL = {
    "_ITM_deregisterTMCloneTable": _COMPILER,
    "_ITM_registerTMCloneTable": _COMPILER,
    "__cmsg_nxthdr": "computes; a call in unoptimised builds alone",
    "__cxa_finalize": _COMPILER,
    "__errno_location": "where errno is",
    "__gmon_start__": _COMPILER,
    "__memcpy_chk": _TEXT_OR_BYTES,
    "__memset_chk": _TEXT_OR_BYTES,
    "__snprintf_chk": _TEXT_OR_BYTES,
    "__stack_chk_fail": _COMPILER,
    "__tls_get_addr": _COMPILER,
    "__assert_fail": "ends the program: debug builds alone",
    "_exit": "does not return",
    "calloc": _MEMORY,
    "ceil": "computes",
    "clock_gettime": "cannot fail for a clock and a pointer that are constant; most often no call",
    "free": _MEMORY,
    "getenv": _TEXT_OR_BYTES,
    "htonl": "computes; a call in unoptimised builds alone",
    "htons": "the same",
    "in6addr_any": "data",
    "inet_ntop": _TEXT_OR_BYTES,
    "inet_pton": _TEXT_OR_BYTES,
    "malloc": _MEMORY,
    "memchr": _TEXT_OR_BYTES,
    "memcmp": _TEXT_OR_BYTES,
    "memcpy": _TEXT_OR_BYTES,
    "memmem": _TEXT_OR_BYTES,
    "memmove": _TEXT_OR_BYTES,
    "memset": _TEXT_OR_BYTES,
    "ntohl": "the same as htonl",
    "ntohs": "the same",
    "pthread_mutex_lock": "fails for mistakes alone: the mutex is static and taken once",
    "pthread_mutex_unlock": "the same",
    "pthread_self": "cannot fail",
    "pthread_sigmask": "fails for mistakes alone: its arguments are constant",
    "realloc": _MEMORY,
    "sigaddset": "computes",
    "sigemptyset": "computes",
    "sigismember": "computes",
    "snprintf": _TEXT_OR_BYTES,
    "strchr": _TEXT_OR_BYTES,
    "strcmp": _TEXT_OR_BYTES,
    "strcspn": _TEXT_OR_BYTES,
    "strlen": _TEXT_OR_BYTES,
    "strnlen": _TEXT_OR_BYTES,
    "strrchr": _TEXT_OR_BYTES,
}


def is_passing(function: str, error: int) -> bool:
    """Tell whether the program may notice nothing: the call is made again, or goes on."""
    if error == 0:  # it was cut short
        return True
    if error == errno.EINTR:
        return function != "waitid"
    if function == "accept4" and error in FAILURES_OF_PEER:
        return True
    if error == errno.EAGAIN:
        return function in BYTES - {"pread"} or function == "accept4"
    return function == "connect" and error == errno.EINPROGRESS
