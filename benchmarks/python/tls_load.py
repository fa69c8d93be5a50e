"""tls_load.py PORT [--connections N] [--size BYTES]: the load for TLS servers.

Each connection sends a message of so many bytes and waits for as many; with --line the
message is a line of four bytes, and the answer is of the size. All send before anybody
reads. Commands on stdin and answers on stdout are those of c/load.c. It is Python, and
slower than what it measures; what counts is the server's processor time.
"""

import argparse
import contextlib
import json
import socket
import ssl
import sys
import time


def connect(port):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    raw = socket.create_connection(("127.0.0.1", port))
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(raw)


def exchange(connections, message, size, room):
    for connection in connections:
        connection.sendall(message)
    for connection in connections:
        left = size
        while left > 0:
            count = connection.recv_into(room)
            if count == 0:
                raise RuntimeError("the server has closed a connection")
            left -= count


def run(connections, message, size, words):
    kind, number = words
    done, room = 0, bytearray(65536)
    start = now = time.perf_counter()
    while (done < int(number)) if kind == "requests" else (now - start < float(number)):
        exchange(connections, message, size, room)
        done += len(connections)
        now = time.perf_counter()
    return {"requests": done, "seconds": now - start}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--line", action="store_true")
    arguments = parser.parse_args()
    message = b"one\n" if arguments.line else b"x" * arguments.size
    connections = [connect(arguments.port) for _ in range(arguments.connections)]
    print("{}", flush=True)
    for line in sys.stdin:
        answer = run(connections, message, arguments.size, line.split())
        print(json.dumps(answer), flush=True)
    # Say good-bye, so that no server has to complain of an end that might be an attack.
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.settimeout(1)
            connection.unwrap()
