"""Certificates out of files: which context they make, and what is said when they do not."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates

from pycoronet.server._tls import (
    CertificateFiles,
    client_ssl_context,
    load_tls,
    server_ssl_context,
)


@pytest.fixture
def key(certificates: Certificates) -> Path:
    """Return the file of the server's key alone."""
    return certificates.folder / "server.key"


@pytest.fixture
def certificate(certificates: Certificates) -> Path:
    """Return the file of the server's certificate alone."""
    return certificates.folder / "server.crt"


@pytest.fixture
def encrypted_key(key: Path, tmp_path: Path) -> Path:
    """Return the server's key, with the password "sesame"."""
    path = tmp_path / "encrypted.key"
    command = ["openssl", "pkcs8", "-topk8", "-in", key, "-out", path, "-passout", "pass:sesame"]
    subprocess.run(command, check=True, capture_output=True)
    return path


def refuse(kind: type[Exception], *files: Any, **options: Any) -> str:
    """Return the one line that the error says."""
    with pytest.raises(kind) as caught:
        server_ssl_context(*files, **options)
    assert not isinstance(caught.value, ssl.SSLError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[Any, Any]:
    """Return both ends of a connection in memory after their handshake."""
    pipes = [ssl.MemoryBIO(), ssl.MemoryBIO()]
    ends = [
        client.wrap_bio(pipes[0], pipes[1], server_hostname="localhost"),
        server.wrap_bio(pipes[1], pipes[0], server_side=True),
    ]
    waiting = ends.copy()
    while waiting:
        end = waiting.pop(0)
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            waiting.append(end)
    with pytest.raises(ssl.SSLWantReadError):
        ends[0].read(1)  # a refusal of TLS 1.3 comes behind the client's handshake
    return ends[0], ends[1]


# --- Contexts ------------------------------------------------------------------------------------


def test_the_key_may_be_in_either_file(
    certificates: Certificates, certificate: Path, key: Path
) -> None:
    client = client_ssl_context(certificates.authority)
    for files in [(certificates.server,), (certificate, key), (str(certificate), str(key))]:
        _, served = shake_hands(server_ssl_context(*files), client)
        assert served.version() in ("TLSv1.2", "TLSv1.3")


@pytest.mark.parametrize("password", ["sesame", b"sesame", lambda: "sesame"])
def test_the_key_may_have_a_password(
    certificates: Certificates, certificate: Path, encrypted_key: Path, password: Any
) -> None:
    context = server_ssl_context(certificate, encrypted_key, password=password)
    shake_hands(context, client_ssl_context(certificates.authority))


VERIFY_FLAGS = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


def make_client(certificates: Certificates, shown: str) -> ssl.SSLContext:
    """Return a client that shows no certificate, a good one or one of another authority."""
    context = client_ssl_context(certificates.authority)
    if shown == "good":
        context.load_cert_chain(certificates.client)
    elif shown == "foreign":
        other = certificates.folder / "other"
        if not other.exists():
            other.mkdir()
            Certificates(other)
        context.load_cert_chain(other / "client.pem")
    return context


@pytest.mark.parametrize(
    ("verify", "shown", "is_let_in"),
    [
        ("none", "nothing", True),
        ("none", "good", True),
        ("none", "foreign", True),
        ("optional", "nothing", True),
        ("optional", "good", True),
        ("optional", "foreign", False),
        ("required", "nothing", False),
        ("required", "good", True),
        ("required", "foreign", False),
    ],
)
def test_clients_are_verified_as_the_mode_says(
    certificates: Certificates, verify: str, shown: str, is_let_in: bool
) -> None:
    authorities = {} if verify == "none" else {"cafile": certificates.authority}
    context = server_ssl_context(certificates.server, verify=verify, **authorities)
    assert context.verify_mode == VERIFY_FLAGS[verify]
    assert not context.check_hostname
    client = make_client(certificates, shown)
    if not is_let_in:
        with pytest.raises(ssl.SSLError, match=r"CERTIFICATE|certificate"):
            shake_hands(context, client)
        return
    _, served = shake_hands(context, client)
    name = served.getpeercert()
    if verify != "none" and shown == "good":
        assert name["subject"] == ((("commonName", "client"),),)
    else:
        assert not name


def test_authorities_may_be_a_directory(certificates: Certificates, tmp_path: Path) -> None:
    done = subprocess.run(
        ["openssl", "x509", "-hash", "-noout", "-in", certificates.authority],
        capture_output=True,
        text=True,
        check=True,
    )
    (tmp_path / f"{done.stdout.strip()}.0").symlink_to(certificates.authority)
    context = server_ssl_context(certificates.server, verify="required", capath=tmp_path)
    client = client_ssl_context(capath=tmp_path)
    client.load_cert_chain(certificates.client)
    shake_hands(context, client)


def test_a_client_verifies_the_server_and_its_name(certificates: Certificates) -> None:
    context = client_ssl_context(certificates.authority)
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    for path in (certificates.elsewhere, certificates.expired):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(server_ssl_context(path), context)
    # It trusts nobody else, and without files those whom the system trusts.
    assert len(context.get_ca_certs()) == 1
    system = client_ssl_context()
    assert system.verify_mode == ssl.CERT_REQUIRED
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server_ssl_context(certificates.server), system)


def test_what_tls_may_be(certificates: Certificates, certificate: Path, key: Path) -> None:
    assert load_tls(None) is None
    context = certificates.server_context()
    assert load_tls(context) is context
    client = client_ssl_context(certificates.authority)
    for value in [(certificate, key), (str(certificate), str(key)), (certificates.server, None)]:
        made = load_tls(value)
        assert made is not None
        shake_hands(made, client)
    files = CertificateFiles(certificate, key, verify="required", cafile=certificates.authority)
    made = load_tls(files)
    assert made is not None
    assert made.verify_mode == ssl.CERT_REQUIRED


# --- What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [True, "server.pem", b"x", (), ("a",), ("a", "b", "c"), ["a", "b"]]
)
def test_what_tls_may_not_be(value: Any) -> None:
    with pytest.raises(TypeError, match=r"tls must be an ssl\.SSLContext, CertificateFiles"):
        load_tls(value)


def test_a_clients_context_is_refused() -> None:
    with pytest.raises(ValueError, match="not a client's"):
        load_tls(client_ssl_context())


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"verify": "peer"}, "verify must be one of none, optional, required, not 'peer'"),
        ({"verify": None}, "verify must be one of"),
        ({"verify": "required"}, "verify='required' needs the clients' authorities"),
        ({"verify": "optional"}, "verify='optional' needs the clients' authorities"),
        ({"cafile": "a.pem"}, "need verify='optional' or verify='required'"),
        ({"capath": "a"}, "need verify='optional' or verify='required'"),
    ],
)
def test_settings_that_do_not_go_together(options: Any, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        CertificateFiles("certificate.pem", **options)


def test_a_password_is_not_shown() -> None:
    assert "sesame" not in repr(CertificateFiles("certificate.pem", password="sesame"))


def test_files_that_cannot_be_read(
    certificates: Certificates, certificate: Path, tmp_path: Path
) -> None:
    none = tmp_path / "none.pem"
    assert refuse(FileNotFoundError, none).endswith(
        f"cannot read the certificate: No such file or directory: '{none}'"
    )
    assert "cannot read the private key: " in refuse(FileNotFoundError, certificate, none)
    assert f"'{tmp_path}'" in refuse(IsADirectoryError, certificate, tmp_path)
    options = {"verify": "required", "cafile": none}
    text = refuse(FileNotFoundError, certificates.server, **options)
    assert text.endswith(
        f"cannot read the authorities' certificates: No such file or directory: '{none}'"
    )
    for path in (none, certificate):
        text = refuse(NotADirectoryError, certificates.server, verify="required", capath=path)
        assert text.endswith(f"no such directory: '{path}'")
    with pytest.raises(FileNotFoundError, match="authorities' certificates") as caught:
        client_ssl_context(none)
    assert caught.value.filename == str(none)


def test_files_that_hold_something_else(
    certificates: Certificates, certificate: Path, key: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    other.write_text("no PEM\n")
    assert refuse(ValueError, other) == f"'{other}' holds no certificate in PEM form"
    assert refuse(ValueError, key, key) == f"'{key}' holds no certificate in PEM form"
    assert refuse(ValueError, certificate) == f"'{certificate}' holds no private key in PEM form"
    assert refuse(ValueError, certificate, other) == f"'{other}' holds no private key in PEM form"
    options = {"verify": "required", "cafile": other}
    text = refuse(ValueError, certificates.server, **options)
    assert text == f"'{other}' holds no certificates in PEM form"


def test_a_key_of_another_certificate(certificates: Certificates, certificate: Path) -> None:
    other = certificates.folder / "client.key"
    text = refuse(ValueError, certificate, other)
    assert text == (
        f"the private key in '{other}' does not belong to the certificate in '{certificate}'"
    )


def test_files_that_are_damaged(certificate: Path, key: Path, tmp_path: Path) -> None:
    for number, path in enumerate((certificate, key)):
        damaged = tmp_path / path.name
        lines = path.read_text().splitlines()
        damaged.write_text("\n".join([lines[0], "AAAA", *lines[2:]]) + "\n")
        files = [certificate, key]
        files[number] = damaged
        text = refuse(ValueError, *files)
        assert f"'{damaged}'" in text
        assert "cannot be used" in text


def test_openssls_own_error_is_the_cause(certificate: Path) -> None:
    with pytest.raises(ValueError, match=r"private key") as caught:
        server_ssl_context(certificate)
    assert isinstance(caught.value.__cause__, ssl.SSLError)


def test_a_wrong_password(certificate: Path, encrypted_key: Path) -> None:
    text = refuse(ValueError, certificate, encrypted_key, password="open")
    assert text == f"the password does not open the private key in '{encrypted_key}'"
    text = refuse(ValueError, certificate, encrypted_key)
    assert text == f"the private key in '{encrypted_key}' needs a password"


def test_ssl_is_loaded_only_when_it_is_used() -> None:
    program = """if 1:
        import sys
        from pycoronet.server import _tls
        _tls.load_tls(None)
        print('ssl' in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=50
    )
    assert done.stdout == "False\n"


def test_names_may_be_any_paths(certificates: Certificates) -> None:
    class Name:
        def __fspath__(self) -> str:
            return os.fspath(certificates.server)

    assert load_tls((Name(), None)) is not None
