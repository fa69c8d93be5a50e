"""The TLS and layered examples against curl, openssl, ncat and socat, as processes."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates

import pycoronet
from pycoronet import connect
from pycoronet.layers import Zlib

PATIENCE_SECONDS = 30

Start = Callable[..., Any]


def need(tool: str) -> str:
    path = shutil.which(tool)
    if path is None:
        pytest.skip(f"{tool} is not installed")
    return path


def port_of(program: Any) -> int:
    """Return the port that an example says it listens on."""
    found = re.search(rb"port (\d+)", program.process.stdout.readline())
    assert found, program.finish()[2]
    return int(found[1])


def run(*command: object, content: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    arguments = [str(part) for part in command]
    # A sanitizer that is preloaded for our sake is none of the other program's business.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    return subprocess.run(
        arguments,
        input=content,
        capture_output=True,
        timeout=PATIENCE_SECONDS,
        env=environment,
    )


def talk(*command: object, content: bytes, expected: bytes) -> bytes:
    """Write to a client's stdin, read what comes back, and only then end its input."""
    arguments = [str(part) for part in command]
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(content)
        client.stdin.flush()
        received = client.stdout.read(len(expected))
        client.stdin.close()
        client.terminate()
        client.wait(PATIENCE_SECONDS)
    return received


@pytest.fixture
def echo_port(start: Start, certificates: Certificates) -> int:
    return port_of(start("tls_echo.py", "serve", certificates.server, 0))


@pytest.fixture
def layered_port(start: Start, certificates: Certificates) -> int:
    return port_of(start("layered_echo.py", certificates.server, 0))


LINES = b"one\ntwo\nthree\n"


# tls_echo.py


def test_echo_with_its_own_client(start: Start, certificates: Certificates, echo_port: int) -> None:
    client = start("tls_echo.py", "talk", certificates.authority, echo_port, stdin=subprocess.PIPE)
    out, err = client.process.communicate(LINES, PATIENCE_SECONDS)
    assert (out, err, client.process.returncode) == (LINES, b"", 0)


def test_echo_with_openssl_s_client(certificates: Certificates, echo_port: int) -> None:
    received = talk(
        *(need("openssl"), "s_client", "-quiet", "-verify_return_error"),
        *("-CAfile", certificates.authority, "-verify_hostname", "localhost"),
        *("-connect", f"127.0.0.1:{echo_port}"),
        content=LINES,
        expected=LINES,
    )
    assert received == LINES


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_echo_with_openssl_s_client_by_version(echo_port: int, version: str) -> None:
    address = f"127.0.0.1:{echo_port}"
    command = (need("openssl"), "s_client", "-quiet", version, "-connect", address)
    assert talk(*command, content=LINES, expected=LINES) == LINES


def test_key_updates_of_openssl_s_client(echo_port: int) -> None:
    # In a line of its own, K asks for new keys of both sides and k changes its own.
    address = f"127.0.0.1:{echo_port}"
    command = (need("openssl"), "s_client", "-tls1_3", "-connect", address)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        for request in (b"before\n", b"K\n", b"behind\n", b"k\n", b"again\n"):
            client.stdin.write(request)
            client.stdin.flush()
            answer = b"KEYUPDATE\n" if request in (b"K\n", b"k\n") else request
            while (line := client.stdout.readline()) != answer:
                assert line, "the server has ended the connection"
        client.terminate()
        client.wait(PATIENCE_SECONDS)


def test_echo_with_ncat(certificates: Certificates, echo_port: int) -> None:
    received = talk(
        *(need("ncat"), "--ssl-verify", "--ssl-trustfile", certificates.authority),
        *("localhost", "-4", echo_port),
        content=LINES,
        expected=LINES,
    )
    assert received == LINES


def test_echo_with_socat(certificates: Certificates, echo_port: int) -> None:
    target = f"OPENSSL:localhost:{echo_port},pf=ip4,cafile={certificates.authority}"
    assert talk(need("socat"), "-", target, content=LINES, expected=LINES) == LINES


def test_echo_survives_clients_that_speak_no_tls(
    echo_port: int, certificates: Certificates
) -> None:
    for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"", b"\x16\x03\x01\x02\x00\x01"):
        with socket.create_connection(("127.0.0.1", echo_port), PATIENCE_SECONDS) as conn:
            conn.sendall(nonsense)
            conn.shutdown(socket.SHUT_WR)
            try:
                while conn.recv(4096):
                    pass
            except ConnectionResetError:
                pass
    with connect(("127.0.0.1", echo_port), tls=certificates.client_context()) as conn:
        conn.write(b"still here\n")
        assert conn.readln() == b"still here\n"


def test_echo_says_nothing_and_ends_well(start: Start, certificates: Certificates) -> None:
    program = start("tls_echo.py", "serve", certificates.server, 0)
    port = port_of(program)
    with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as conn:
        conn.sendall(b"not TLS\n")
        while conn.recv(4096):
            pass
    program.interrupt()
    assert program.finish() == (0, "", "")


def test_client_refuses_a_server_it_does_not_trust(
    start: Start, certificates: Certificates
) -> None:
    port = port_of(start("tls_echo.py", "serve", certificates.elsewhere, 0))
    client = start("tls_echo.py", "talk", certificates.authority, port, stdin=subprocess.DEVNULL)
    code, out, err = client.finish()
    assert (code, out) == (1, "")
    assert "CERTIFICATE_VERIFY_FAILED" in err


def test_client_of_openssl_s_server(certificates: Certificates) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [need("openssl"), "s_server", "-accept", f"127.0.0.1:{port}", "-rev", "-quiet"]
    command += ["-cert", str(certificates.server), "-key", str(certificates.server)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            with pycoronet.timeout(PATIENCE_SECONDS):
                conn = None
                while conn is None:
                    try:
                        conn = connect(("127.0.0.1", port), tls=certificates.client_context())
                    except ConnectionRefusedError:
                        pycoronet.sleep(0.01)  # it has not begun to listen yet
                with conn:
                    conn.write(b"stressed\n")
                    assert conn.readln() == b"desserts\n"
                    conn.write(b"CLOSE\n")
                    assert conn.readln() == b""
        finally:
            server.terminate()


@pytest.mark.parametrize("arguments", [(), ("serve",), ("sing", "x", "1"), ("serve", "x", "y")])
def test_echo_with_a_wrong_command_line(start: Start, arguments: tuple[str, ...]) -> None:
    code, out, err = start("tls_echo.py", *arguments).finish()
    assert (code, out) == (2, "")
    assert "tls_echo.py serve" in err


# layered_echo.py


def test_starttls_and_compress(certificates: Certificates, layered_port: int) -> None:
    with connect(("127.0.0.1", layered_port)) as conn:
        conn.write(b"in the clear\n")
        assert conn.readln() == b"in the clear\n"
        conn.write(b"STARTTLS\r\n")
        assert conn.readln() == b"+ go ahead\r\n"
        conn.start_tls(certificates.client_context(), server_hostname="localhost")
        conn.write(b"in private\n")
        assert conn.readln() == b"in private\n"
        conn.write(b"COMPRESS\r\n")
        assert conn.readln() == b"+ go ahead\r\n"
        conn.push_layer(Zlib())
        conn.write(b"squeezed\n" * 1000)
        for _ in range(1000):
            assert conn.readln() == b"squeezed\n"
        conn.write(b"QUIT\n")
        assert conn.readln() == b"+ bye\r\n"
        assert conn.readln() == b""


def test_everything_in_one_packet(layered_port: int) -> None:
    compressor = zlib.compressobj()
    squeezed = compressor.compress(b"one\nQUIT\n") + compressor.flush(zlib.Z_SYNC_FLUSH)
    with socket.create_connection(("127.0.0.1", layered_port), PATIENCE_SECONDS) as conn:
        conn.sendall(b"plain\nCOMPRESS\n" + squeezed)
        received = b""
        while data := conn.recv(65536):
            received += data
    plain, _, rest = received.partition(b"+ go ahead\r\n")
    assert plain == b"plain\n"
    stream = zlib.decompressobj()
    assert stream.decompress(rest) == b"one\n+ bye\r\n"
    assert stream.eof


def test_what_passes_is_logged(start: Start, certificates: Certificates, tmp_path: Path) -> None:
    log = tmp_path / "log"
    program = start("layered_echo.py", certificates.server, 0, env={"LOG": str(log)})
    with socket.create_connection(("127.0.0.1", port_of(program)), PATIENCE_SECONDS) as conn:
        conn.sendall(b"hello\nQUIT\n")
        while conn.recv(65536):
            pass
    assert log.read_bytes() == b"hello\nQUIT\nhello\n+ bye\r\n"


# layered_whoami.py


def test_whoami_with_curl_behind_a_proxy(start: Start) -> None:
    port = port_of(start("layered_whoami.py", 0))
    done = run(need("curl"), "-sS", "--haproxy-protocol", f"http://127.0.0.1:{port}/")
    assert re.fullmatch(rb"You are 127\.0\.0\.1 port \d+, in the clear\.\n", done.stdout)


def test_whoami_with_curl_over_tls(start: Start, certificates: Certificates) -> None:
    port = port_of(start("layered_whoami.py", 0, certificates.server))
    url = f"https://localhost:{port}/"
    done = run(need("curl"), "-sS4", "--haproxy-protocol", "--insecure", url)
    assert re.fullmatch(rb"You are 127\.0\.0\.1 port \d+, over TLSv1\.[23]\.\n", done.stdout)
    done = run(need("curl"), "-sS4", "--haproxy-protocol", "--cacert", certificates.authority, url)
    assert done.returncode == 0, done.stderr
    done = run(need("curl"), "-sS4", "--haproxy-protocol", url)
    assert done.returncode == 60  # it trusts nobody who is not known


@pytest.mark.parametrize("version", [1, 2])
def test_whoami_believes_the_header(start: Start, version: int) -> None:
    from pycoronet.layers import ProxyHeader

    port = port_of(start("layered_whoami.py", 0))
    with connect(("127.0.0.1", port)) as conn:
        addresses = ("192.0.2.7", 1234), ("198.51.100.1", 80)
        conn.push_layer(ProxyHeader(*addresses, version=version))
        conn.write(b"GET / HTTP/1.0\r\n\r\n")
        assert conn.read(1000).endswith(b"\r\n\r\nYou are 192.0.2.7 port 1234, in the clear.\n")


def test_whoami_refuses_a_header_that_lies(start: Start) -> None:
    program = start("layered_whoami.py", 0)
    port = port_of(program)
    for header in (b"GET / HTTP/1.0\r\n\r\n", b"PROXY TCP4 1.2.3.4 ::1 1 2\r\n", b"PROXY " * 30):
        with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as conn:
            conn.sendall(header)
            assert conn.recv(100) == b""
        assert b"PROXY header" in program.process.stderr.readline()
    context = ssl.create_default_context()
    with pytest.raises((ssl.SSLError, ConnectionResetError, BrokenPipeError)):
        connect(("127.0.0.1", port), tls=context)
