"""examples/cnhttpd.py: what it answers, what it refuses, and how it starts and ends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import struct
import subprocess
from pathlib import Path

import pytest
from connections import receive_all

PATIENCE_SECONDS = 30


# /mem-N.


@pytest.mark.parametrize("size", [0, 1, 100, 8000, 8192, 8193, 100_000, 3_000_000])
def test_mem_has_as_many_bytes_as_asked_for(shared_server, size):
    status, headers, body = shared_server.get(f"/mem-{size}")
    assert (status, headers["content-length"], len(body)) == (200, str(size), size)


@pytest.mark.parametrize("size", [100, 100_000])
def test_head_of_mem_has_the_length_but_no_body(shared_server, size):
    status, headers, body = shared_server.get(f"/mem-{size}", "HEAD")
    assert (status, headers["content-length"], body) == (200, str(size), b"")


def test_a_remembered_reply_is_not_a_reply_to_head(shared_server):
    assert shared_server.get("/mem-10")[2] != b""
    assert shared_server.get("/mem-10", "HEAD")[2] == b""


@pytest.mark.parametrize("number", ["", "-1", "+1", "1x", "x", "1e3", "%31", "9" * 19, "9" * 8000])
def test_mem_without_a_usable_number_is_not_found(shared_server, number):
    assert shared_server.get(f"/mem-{number}")[0] == 404


def test_mem_takes_a_query_for_none_of_its_business(shared_server):
    assert shared_server.get("/mem-12?x=1")[2] == shared_server.get("/mem-12")[2]


def test_more_sizes_than_are_remembered_are_all_right(shared_server):
    for size in [*range(200), *range(200)]:
        assert len(shared_server.get(f"/mem-{size}")[2]) == size


def test_who_goes_away_in_a_long_body_ends_nobody_else(server):
    with server.connect() as leaving, server.connect() as staying:
        leaving.sendall(b"GET /mem-900000000000000000 HTTP/1.1\r\n\r\n")
        assert leaving.recv(100).startswith(b"HTTP/1.1 200")
        reset_at_close = struct.pack("ii", 1, 0)
        leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset_at_close)
        leaving.close()
        staying.sendall(b"GET /mem-5 HTTP/1.0\r\n\r\n")
        assert staying.makefile("rb").read().startswith(b"HTTP/1.1 200")
    server.interrupt()
    code, out, err = server.finish()
    assert (code, err) == (0, "")
    assert "Connections .....: 2\n" in out


# Protocol.


@pytest.mark.parametrize(
    ("version", "connection", "stays"),
    [
        ("1.1", None, True),
        ("1.1", "keep-alive", True),
        ("1.1", "close", False),
        ("1.1", "CLOSE", False),
        ("1.1", "upgrade, close", False),
        ("1.0", None, False),
        ("1.0", "keep-alive", True),
        ("1.0", "Keep-Alive", True),
        ("1.0", "close", False),
    ],
)
@pytest.mark.parametrize("target", ["/mem-5", "/mem-9000", "/nothing"])
def test_connections_stay_as_version_and_header_ask(
    shared_server, version, connection, stays, target
):
    header = f"Connection: {connection}\r\n" if connection else ""
    request = f"GET {target} HTTP/{version}\r\nHost: x\r\n{header}\r\n".encode()
    with shared_server.connect() as conn:
        conn.sendall(request * 2)
        if stays:
            conn.shutdown(socket.SHUT_WR)
        reply = receive_all(conn)
    assert reply.count(b"HTTP/1.1 ") == (2 if stays else 1)
    assert reply.count(b"Connection: keep-alive") == (2 if stays else 0)
    assert reply.count(b"Connection: close") == (0 if stays else 1)


def test_methods_need_not_be_in_capitals(shared_server):
    assert shared_server.get("/mem-3", "get")[0] == 200
    assert shared_server.get("/mem-3", "head")[2] == b""


BAD_REQUESTS = {
    "no words": b"\r\n",
    "one word": b"GET\r\n\r\n",
    "two words": b"GET /mem-1\r\n\r\n",
    "four words": b"GET /mem-1 HTTP/1.1 x\r\n\r\n",
    "another protocol": b"GET /mem-1 SPDY/3\r\n\r\n",
    "another version": b"GET /mem-1 HTTP/2.0\r\n\r\n",
    "binary": bytes(range(256)) * 4 + b"\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n",
    "POST": b"POST /mem-1 HTTP/1.1\r\n\r\n",
    "a length": b"GET /mem-1 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    "a length in capitals": b"GET /mem-1 HTTP/1.1\r\nCONTENT-LENGTH:5\r\n\r\nhello",
    "no number": b"GET /mem-1 HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    "no length": b"GET /mem-1 HTTP/1.1\r\nContent-Length:\r\n\r\n",
    "a negative length": b"GET /mem-1 HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    "a length with a space": b"GET /mem-1 HTTP/1.1\r\nContent-Length : 5\r\n\r\nhello",
    "chunks": b"GET /mem-1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded line": b"GET /mem-1 HTTP/1.1\r\nA: b\r\n c: d\r\n\r\n",
    "no colon": b"GET /mem-1 HTTP/1.1\r\nhello\r\n\r\n",
    "no name": b"GET /mem-1 HTTP/1.1\r\n: hello\r\n\r\n",
    "a bare line feed as the end": b"GET /mem-1 HTTP/1.1\r\n\n",
    "the end of file in the head": b"GET /mem-1 HTTP/1.1\r\nA: b\r\n",
    "the end of file in a line": b"GET /mem-1 HT",
    "not a path": b"GET * HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
def test_what_is_no_request_is_refused_and_the_connection_closed(shared_server, request_bytes):
    if not request_bytes.endswith((b"HT", b"A: b\r\n")):
        request_bytes += b"GET /mem-7 HTTP/1.1\r\n\r\n" * 2
    reply = shared_server.exchange(request_bytes)
    assert reply.count(b"HTTP/1.1") == 1
    assert reply.startswith(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n")
    assert shared_server.get("/mem-2")[0] == 200


TOO_LARGE = {
    "request line": b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n",
    "header line": b"GET /mem-1 HTTP/1.1\r\nA: " + b"x" * 9000 + b"\r\n\r\n",
    "endless line": b"x" * 100_000,
    "number of headers": b"GET /mem-1 HTTP/1.1\r\n" + b"A: b\r\n" * 101 + b"\r\n",
}


@pytest.mark.parametrize("request_bytes", TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_what_is_too_large_is_refused_and_the_connection_closed(shared_server, request_bytes):
    reply = shared_server.exchange(request_bytes)
    assert reply.startswith(b"HTTP/1.1 431 ")
    assert reply.count(b"HTTP/1.1") == 1


def test_as_many_headers_as_are_allowed(shared_server):
    request = b"GET /mem-1 HTTP/1.1\r\n" + b"A: b\r\n" * 99 + b"\r\n"
    assert shared_server.exchange(request).startswith(b"HTTP/1.1 200 ")


def test_the_refusal_of_a_long_body_is_not_lost(shared_server):
    with shared_server.connect() as conn:
        conn.sendall(b"POST / HTTP/1.1\r\nContent-Length: 500000\r\n\r\n" + b"x" * 500_000)
        assert conn.makefile("rb").read().startswith(b"HTTP/1.1 400 ")


class RecordingConnection:
    """Takes the place of an sk_conn: gives lines, and notes what is done."""

    def __init__(self, request: bytes) -> None:
        self.lines = request.splitlines(keepends=True)
        self.done: list[object] = []

    def readline(self, limit: int) -> bytes:
        return self.lines.pop(0) if self.lines else b""

    def write(self, data: bytes) -> int:
        self.done.append(len(data))
        return len(data)

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self.done.append("cork" if value else "uncork")


def record(cnhttpd, target: str) -> list[object]:
    conn = RecordingConnection(f"GET {target} HTTP/1.1\r\n\r\n".encode())
    cnhttpd.answer_requests(conn)
    return conn.done


def test_no_more_than_so_many_requests_are_remembered(load_example):
    cnhttpd = load_example("cnhttpd")
    for size in range(cnhttpd.MAX_SHORT_REQUESTS * 3):
        record(cnhttpd, f"/mem-{size}")
        assert 0 < len(cnhttpd.short_requests) <= cnhttpd.MAX_SHORT_REQUESTS


def test_a_short_reply_is_one_write_and_a_long_one_is_corked(load_example, tmp_path):
    cnhttpd = load_example("cnhttpd")
    cnhttpd.options.root = tmp_path.resolve()
    head_size = len(cnhttpd.make_head(200, True, 1000, "text/plain"))
    at_most = 8192 - head_size
    for size in (0, 100, at_most):
        (tmp_path / "file").write_bytes(b"x" * size)
        assert record(cnhttpd, f"/mem-{size}") == record(cnhttpd, f"/mem-{size}")
        assert len(record(cnhttpd, f"/mem-{size}")) == 1
    (tmp_path / "file.txt").write_bytes(b"x" * 1000)
    assert len(record(cnhttpd, "/file.txt")) == 1
    cork = ["cork"] if cnhttpd.HAS_CORK else []
    uncork = ["uncork"] if cnhttpd.HAS_CORK else []
    assert record(cnhttpd, f"/mem-{at_most + 1}") == [*cork, head_size, at_most + 1, *uncork]
    assert record(cnhttpd, "/mem-16385") == [*cork, head_size + 1, 8192, 8192, 1, *uncork]
    (tmp_path / "file").write_bytes(b"x" * (at_most + 100))
    assert [done for done in record(cnhttpd, "/file") if done in ("cork", "uncork")] == [
        *cork,
        *uncork,
    ]


# Documents.


def test_a_document_comes_with_its_type_and_length(server, tmp_path):
    for name, content_type in (
        ("a.html", "text/html; charset=utf-8"),
        ("b.png", "image/png"),
        ("c.tar.gz", "application/gzip"),
        ("d", "application/octet-stream"),
    ):
        content = os.urandom(1000)
        (tmp_path / name).write_bytes(content)
        status, headers, body = server.get(f"/{name}")
        assert (status, body) == (200, content)
        assert headers["content-length"] == "1000"
        assert headers["content-type"] == content_type
        status, headers, body = server.get(f"/{name}", "HEAD")
        assert (status, body, headers["content-length"]) == (200, b"", "1000")


@pytest.mark.parametrize("size", [0, 1, 8000, 8192, 65536, 262_144, 262_145, 1_500_000])
def test_a_document_of_any_size_arrives_whole(server, tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    assert server.get("/file")[2] == content


def test_documents_follow_each_other_on_a_connection(server, tmp_path):
    (tmp_path / "file").write_bytes(b"y" * 300_000)
    reply = server.exchange(b"GET /file HTTP/1.1\r\n\r\n" * 3)
    assert reply.count(b"HTTP/1.1 200 OK") == 3
    assert reply.count(b"y") >= 900_000


def test_a_folder_is_its_index(server, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    assert server.get("/folder/")[0] == 404
    (folder / "index.html").write_text("hello")
    assert server.get("/folder/")[2] == b"hello"
    assert server.get("/folder")[2] == b"hello"
    assert server.get("/")[0] == 404


def test_names_are_decoded_and_queries_cut_off(server, tmp_path):
    (tmp_path / "a b?.txt").write_text("hello")
    (tmp_path / "back\\slash").write_text("world")
    assert server.get("/a%20b%3f.txt?query")[2] == b"hello"
    assert server.get("/back\\slash")[2] == b"world"
    assert server.get("/back%5Cslash")[2] == b"world"


@pytest.mark.parametrize("target", ["/nothing", "/%zz", "/file/below", "/" + "n" * 300, "/mem"])
def test_what_is_not_there_is_not_found(server, tmp_path, target):
    (tmp_path / "file").write_text("x")
    assert server.get(target)[0] == 404


@pytest.mark.parametrize(
    "target",
    [
        "/../secret",
        "/folder/../../secret",
        "/%2e%2e/secret",
        "/%2e%2e%2fsecret",
        "/..%2fsecret",
        "/folder/%2e./../secret",
        "/link",
        "/folder-link/secret",
        "/folder/",
        "/file%00",
        "/file%00.png",
    ],
)
def test_what_is_outside_the_root_is_forbidden(start_server, tmp_path, target):
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (tmp_path / "secret").write_text("SECRET")
    (root / "file").write_text("hello")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "folder-link").symlink_to(tmp_path)
    (root / "folder" / "index.html").symlink_to("../../secret")
    server = start_server("-r", root)
    assert server.get(target)[0] == 403
    assert server.get("/file")[2] == b"hello"


@pytest.mark.parametrize("path", ["/etc/passwd", "//etc/passwd", "/%2Fetc/passwd", "/..\\passwd"])
def test_absolute_paths_and_backslashes_lead_nowhere(shared_server, path):
    assert shared_server.get(path)[0] == 404


def test_a_root_that_is_a_neighbour_by_name_is_outside(start_server, tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root-secret").mkdir()
    (tmp_path / "root-secret" / "file").write_text("SECRET")
    assert start_server("-r", tmp_path / "root").get("/../root-secret/file")[0] == 403


def test_links_inside_the_root_are_followed(server, tmp_path):
    (tmp_path / "file").write_text("hello")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "circle").symlink_to("circle")
    assert server.get("/link")[2] == b"hello"
    assert server.get("/circle")[0] == 404


def test_special_files_are_forbidden_and_stop_nobody(server, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        here = Path.cwd()
        os.chdir(tmp_path)  # the whole path may be too long for a socket
        try:
            sock.bind("socket")
        finally:
            os.chdir(here)
    assert server.get("/fifo")[0] == 403
    assert server.get("/socket")[0] == 403
    assert server.get("/mem-1")[0] == 200


def test_a_file_that_may_not_be_read_is_forbidden(load_example, monkeypatch, tmp_path):
    cnhttpd = load_example("cnhttpd")
    cnhttpd.options.root = tmp_path.resolve()
    (tmp_path / "file").write_text("x")

    def refuse(*arguments):
        raise PermissionError

    monkeypatch.setattr(cnhttpd.os, "open", refuse)
    conn = RecordingConnection(b"GET /file HTTP/1.1\r\n\r\n")
    conn.write = conn.done.append
    cnhttpd.answer_requests(conn)
    assert conn.done[0].startswith(b"HTTP/1.1 403 ")


def test_a_file_that_shrinks_ends_the_connection(load_example, monkeypatch, tmp_path):
    cnhttpd = load_example("cnhttpd")
    cnhttpd.options.root = tmp_path.resolve()
    (tmp_path / "file").write_bytes(b"x" * 20_000)
    monkeypatch.setattr(cnhttpd.os, "read", lambda file, size: b"")
    conn = RecordingConnection(b"GET /file HTTP/1.1\r\n\r\n")
    with pytest.raises(ConnectionAbortedError):
        cnhttpd.answer_requests(conn)


# The program.


def test_an_interrupt_prints_what_was_done(server, tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 1000)
    server.exchange(b"GET /mem-100 HTTP/1.1\r\n\r\n" * 3)
    server.get("/mem-20000")
    server.get("/file")
    server.get("/file", "HEAD")
    server.get("/nothing")
    server.exchange(b"nonsense\r\n")
    with server.connect() as idle:
        idle.sendall(b"GET /mem-1 HTTP/1.1\r\n\r\n")
        assert idle.recv(1000) != b""
        server.interrupt()
        code, out, err = server.finish()
    assert (code, err) == (0, "")
    assert out == ("Connections .....: 7\nRequests ........: 8\nTotal Bytes .....: 21301\n")


def test_an_interrupt_counts_even_if_the_shell_had_it_ignored(start_server):
    server = start_server(preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    assert server.get("/mem-1")[0] == 200
    server.interrupt()
    assert server.finish()[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [["-h"], ["-x"], ["-p"], ["-p", "x"], ["-p", "65536"], ["-p", "-1"], ["-L", "x"], ["x"]],
)
def test_a_command_line_it_cannot_use_gets_the_usage(start, arguments):
    code, out, err = start("cnhttpd.py", *arguments).finish()
    assert (code, out) == (1, "")
    for option in ("-p PORT (80)", "-r ROOTFS", "-L LSNBKLOG (1024)", "-S STKSIZE", "-h"):
        assert option in err
    assert re.search(r"-S STKSIZE +has no effect", err)


def test_a_root_that_is_not_there_ends_the_start(start, tmp_path):
    code, _, err = start("cnhttpd.py", "-p", 0, "-r", tmp_path / "nothing").finish()
    assert code == 1
    assert "nothing" in err
    assert "Traceback" not in err


def test_a_port_in_use_ends_the_start(start, server):
    program = start("cnhttpd.py", "-b", "127.0.0.1", "-p", server.port)
    code, _, err = program.finish()
    assert (code, err.count("\n")) == (3, 1)
    assert err.startswith(f"cnhttpd: bind 127.0.0.1 port {server.port}: ")


def fail(*arguments, **options):
    raise OSError(12, "Cannot allocate memory")


@pytest.mark.parametrize(
    ("name", "exit_code"), [("get_hub", 1), ("socket.socket", 2), ("spawn", 4)]
)
def test_each_failure_of_the_start_has_its_exit_code(
    load_example, monkeypatch, capsys, name, exit_code
):
    cnhttpd = load_example("cnhttpd")
    *owner, attribute = name.split(".")
    monkeypatch.setattr(getattr(cnhttpd, owner[0]) if owner else cnhttpd, attribute, fail)
    assert cnhttpd.main(["cnhttpd", "-b", "127.0.0.1", "-p", "0"]) == exit_code
    assert "Cannot allocate memory" in capsys.readouterr().err


def test_the_stack_size_and_the_backlog_are_accepted(start_server):
    assert start_server("-S", 8192, "-L", 5).get("/mem-1")[0] == 200


# Other people's clients.


def run(*command: object) -> str:
    # A sanitizer that is preloaded for our sake is none of the other program's business.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    return subprocess.run(
        list(map(str, command)),
        check=True,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    ).stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_gets_what_it_asks_for(server, tmp_path):
    (tmp_path / "page.html").write_text("hello")
    assert len(run("curl", "-sS", server.url("/mem-1000"))) == 1000
    assert run("curl", "-sS", "--http1.0", server.url("/page.html")) == "hello"
    form = "%{http_code} %{content_type} %{num_connects}\\n"
    urls = [server.url("/page.html"), server.url("/nothing")]
    outputs = ["-o", os.devnull, "-o", os.devnull]
    assert run("curl", "-sS", "-w", form, *outputs, *urls).splitlines() == [
        "200 text/html; charset=utf-8 1",
        "404  0",
    ]
    assert run("curl", "-sS", "-w", "%{http_code}", "-d", "x", server.url("/mem-1")) == "400"


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
@pytest.mark.parametrize("target", ["/mem-100", "/mem-20000", "/file"])
def test_wrk_meets_no_errors(server, tmp_path, target):
    (tmp_path / "file").write_bytes(b"x" * 300_000)
    report = run("wrk", "-t1", "-c8", "-d1s", server.url(target))
    assert re.search(r"[1-9]\d* requests in", report)
    assert "Non-2xx" not in report
    assert "Socket errors" not in report
