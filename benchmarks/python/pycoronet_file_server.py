"""pycoronet_file_server.py PORT FILE: sends one file to whoever connects."""

import contextlib
import pathlib
import sys

import pycoronet


def send(conn, address):
    # Whoever looks whether the server is up leaves at once.
    with contextlib.suppress(ConnectionError):
        conn.sendfile(file)
        conn.flush()


if __name__ == "__main__":
    with pathlib.Path(sys.argv[2]).open("rb") as file:
        pycoronet.serve(("127.0.0.1", int(sys.argv[1])), send)
