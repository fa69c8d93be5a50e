"""The example program of the coronet(3) manual page, over pycoronet.conet.

A port almost line for line: the same functions, variables, order and exit codes. Python's
are the strings, the exceptions in place of return values, and the address, which is
printed for whoever asked for port 0. It listens on the loopback alone.
"""

from __future__ import annotations

import re
import signal
import socket
import sys
from types import FrameType

from pycoronet import LineTooLongError, sk_conn
from pycoronet.conet import (
    co_call,
    co_create,
    co_current,
    conet_accept,
    conet_cleanup,
    conet_close_conn,
    conet_events_dispatch,
    conet_events_wait,
    conet_init,
    conet_new_conn,
    conet_printf,
    conet_readln,
    conet_socket,
    conet_write,
)

CNHD_EVWAIT_TIMEO = 1000

stopsvr = 0
svr_port = 80
lsnbklog = 128
conns = reqs = tbytes = 0

mbuf = bytes(1024 * 8)


def cnhd_set_cork(conn: sk_conn, v: int) -> None:
    if hasattr(socket, "TCP_CORK"):
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, v)


def cnhd_send_mem(conn: sk_conn, size: int, ver: bytes, cclose: bytes) -> None:
    global tbytes

    cnhd_set_cork(conn, 1)
    conet_printf(
        conn,
        b"%s 200 OK\r\nConnection: %s\r\nContent-Length: %d\r\n\r\n",
        ver,
        cclose,
        size,
    )
    msent = 0
    while msent < size:
        csize = min(size - msent, len(mbuf))
        msent += conet_write(conn, mbuf[:csize])
    cnhd_set_cork(conn, 0)

    tbytes += msent


def cnhd_send_doc(conn: sk_conn, doc: bytes, ver: bytes, cclose: bytes) -> None:
    conet_printf(
        conn,
        b"%s 404 OK\r\nConnection: %s\r\nContent-Length: 0\r\n\r\n",
        ver,
        cclose,
    )


def atol(text: bytes) -> int:
    """Convert as the C function does: leading digits, else 0."""
    found = re.match(rb"\s*([+-]?\d+)", text)
    return int(found[1]) if found else 0


def cnhd_send_url(conn: sk_conn, doc: bytes, ver: bytes, cclose: bytes) -> None:
    if doc.startswith(b"/mem-"):
        cnhd_send_mem(conn, atol(doc[5:]), ver, cclose)
    else:
        cnhd_send_doc(conn, doc, ver, cclose)


def cnhd_bad_request(conn: sk_conn) -> None:
    conet_printf(
        conn,
        b"HTTP/1.1 400 Bad request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    )


def cnhd_service(cfd: int) -> None:
    global conns, reqs

    conn = conet_new_conn(cfd, co_current())
    conns += 1
    cclose = False
    try:
        while not stopsvr and not cclose:
            req = conet_readln(conn)
            if req is None:
                break
            words = req.split()
            if len(words) < 3 or words[0].lower() != b"get":
                cnhd_bad_request(conn)
                break
            _, doc, ver = words[:3]
            cclose = ver.lower() != b"http/1.1"
            clen, chunked = 0, False
            while True:
                ln = conet_readln(conn)
                if ln is None:
                    return
                if ln == b"\r\n":
                    break
                name, _, value = ln.partition(b":")
                if name.lower() == b"content-length":
                    clen = atol(value)
                elif name.lower() == b"connection":
                    cclose = value.strip().lower().startswith(b"close")
                elif name.lower() == b"transfer-encoding":
                    chunked = value.strip().lower().startswith(b"chunked")
            # Sorry, really stupid HTTP server here. Neither GET payload nor
            # chunked encoding allowed.
            if clen or chunked:
                cnhd_bad_request(conn)
                break
            reqs += 1
            cnhd_send_url(conn, doc, ver, b"close" if cclose else b"keep-alive")
    except LineTooLongError:
        cnhd_bad_request(conn)
    except OSError:
        pass  # the client is gone: in C a negative return value that nobody looks at
    finally:
        conet_close_conn(conn)


def cnhd_acceptor(sfd: int) -> None:
    conn = conet_new_conn(sfd, co_current())
    while not stopsvr:
        cfd, _addr = conet_accept(conn)
        co_call(co_create(cnhd_service, cfd))
    conet_close_conn(conn)


def cnhd_sigint(sig: int, frame: FrameType | None) -> None:
    global stopsvr
    stopsvr += 1


def cnhd_usage(prg: str) -> None:
    print(f"Use: {prg} [-p PORT ({svr_port})] [-L LSNBKLOG ({lsnbklog})] [-h]", file=sys.stderr)


def main(av: list[str]) -> int:
    global svr_port, lsnbklog

    args = iter(av[1:])
    for arg in args:
        if arg == "-p":
            svr_port = int(next(args, svr_port))
        elif arg == "-L":
            lsnbklog = int(next(args, lsnbklog))
        else:
            cnhd_usage(av[0])
            return 1
    signal.signal(signal.SIGINT, cnhd_sigint)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.siginterrupt(signal.SIGINT, True)
    try:
        conet_init()
    except OSError:
        return 1
    try:
        sfd = conet_socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    except OSError:
        return 2
    sock = socket.socket(fileno=sfd)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(("127.0.0.1", svr_port))
    except OSError as error:
        print(error, file=sys.stderr)
        sock.close()
        return 3
    sock.listen(lsnbklog)
    print(*sock.getsockname(), flush=True)
    co_call(co_create(cnhd_acceptor, sock.detach()))

    while not stopsvr:
        conet_events_wait(CNHD_EVWAIT_TIMEO)
        conet_events_dispatch(0)
    conet_cleanup()

    print(f"Connections .....: {conns}\nRequests ........: {reqs}\nTotal Bytes .....: {tbytes}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
