"""TLS settings: certificate files become contexts, and what is wrong with them one clear line.

ssl is loaded when it is used: many programs have no TLS.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import ssl

__all__ = ["CertificateFiles", "client_ssl_context", "load_tls", "server_ssl_context"]

FileName: TypeAlias = str | os.PathLike[str]
Password: TypeAlias = str | bytes | Callable[[], str | bytes] | None

VERIFY_MODES = {"none": "CERT_NONE", "optional": "CERT_OPTIONAL", "required": "CERT_REQUIRED"}


@dataclass(frozen=True)
class CertificateFiles:
    """A server's certificate, its key, and whose clients it believes: PEM files.

    certfile: the certificate, then those between it and its authority. keyfile: the private
    key, None if certfile holds it too. password: of the key, or a function that returns it.
    verify: what a client has to show. "none": nothing. "optional": a certificate is asked for,
    and has to be good if one comes. "required": there is no connection without a good one.
    cafile, capath: the authorities that may have signed it, in a file, or in a directory as
    `openssl rehash` makes it; at least one of them with "optional" and "required".

    Source: cp_socket's cp_socket_create_ssl.
    """

    certfile: FileName
    keyfile: FileName | None = None
    verify: str = field(default="none", kw_only=True)
    cafile: FileName | None = field(default=None, kw_only=True)
    capath: FileName | None = field(default=None, kw_only=True)
    password: Password = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        if self.verify not in VERIFY_MODES:
            raise ValueError(
                f"verify must be one of {', '.join(VERIFY_MODES)}, not {self.verify!r}"
            )
        has_authorities = self.cafile is not None or self.capath is not None
        if self.verify != "none" and not has_authorities:
            raise ValueError(
                f"verify={self.verify!r} needs the clients' authorities: cafile or capath"
            )
        if self.verify == "none" and has_authorities:
            raise ValueError("cafile and capath need verify='optional' or verify='required'")

    def context(self) -> "ssl.SSLContext":
        """Read the files and return a server's context.

        Raises OSError for a file that cannot be read, and ValueError for one that does not
        hold what it should, each naming the file; OpenSSL's own error is the cause. Never
        switches.
        """
        import ssl

        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        _load_certificate(context, self)
        _load_authorities(context, self.cafile, self.capath)
        context.verify_mode = ssl.VerifyMode[VERIFY_MODES[self.verify]]
        return context


def server_ssl_context(
    certfile: FileName,
    keyfile: FileName | None = None,
    *,
    verify: str = "none",
    cafile: FileName | None = None,
    capath: FileName | None = None,
    password: Password = None,
) -> "ssl.SSLContext":
    """Return a server's context: what CertificateFiles makes of the same arguments.

    certfile, keyfile, verify, cafile, capath, password: PEM files and modes, as there. Raises
    OSError and ValueError as CertificateFiles.context() does. Never switches.

    Source: cp_socket's cp_socket_create_ssl.
    """
    return CertificateFiles(
        certfile, keyfile, verify=verify, cafile=cafile, capath=capath, password=password
    ).context()


def client_ssl_context(
    cafile: FileName | None = None, capath: FileName | None = None
) -> "ssl.SSLContext":
    """Return a client's context: it verifies the server's certificate and its name.

    cafile, capath: the authorities that it trusts, in a file, or in a directory as `openssl
    rehash` makes it; without both, the system's. Raises OSError and ValueError as
    CertificateFiles.context() does. Never switches.

    Source: cp_socket's get_client_ssl_ctx.
    """
    import ssl

    if cafile is None and capath is None:
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _load_authorities(context, cafile, capath)
    return context


def load_tls(value: Any) -> "ssl.SSLContext | None":
    """Return the context of a server's tls setting.

    value: None, a server's ssl.SSLContext, CertificateFiles or a tuple (certfile, keyfile).
    """
    if value is None:
        return None
    import ssl

    if isinstance(value, ssl.SSLContext):
        if value.protocol == ssl.PROTOCOL_TLS_CLIENT:
            raise ValueError("tls needs a server's context, not a client's")
        return value
    if isinstance(value, CertificateFiles):
        return value.context()
    if isinstance(value, tuple) and len(value) == 2:
        return CertificateFiles(*value).context()
    raise TypeError(
        "tls must be an ssl.SSLContext, CertificateFiles, (certfile, keyfile) or None, "
        f"not {type(value).__name__}"
    )


def _load_certificate(context: "ssl.SSLContext", files: CertificateFiles) -> None:
    import ssl

    certificate = _read(files.certfile, "certificate")
    key_name = files.certfile if files.keyfile is None else files.keyfile
    key = certificate if files.keyfile is None else _read(files.keyfile, "private key")
    # Without a function OpenSSL would ask at the terminal.
    password = _no_password if files.password is None else files.password
    try:
        context.load_cert_chain(files.certfile, files.keyfile, password)
    except _NoPasswordError:
        raise ValueError(f"the private key in {_show(key_name)} needs a password") from None
    except ssl.SSLError as error:
        if b"-----BEGIN CERTIFICATE-----" not in certificate:
            problem = f"{_show(files.certfile)} holds no certificate in PEM form"
        elif b"PRIVATE KEY-----" not in key:
            problem = f"{_show(key_name)} holds no private key in PEM form"
        elif error.reason == "KEY_VALUES_MISMATCH":
            problem = (
                f"the private key in {_show(key_name)} does not belong to the certificate in "
                f"{_show(files.certfile)}"
            )
        elif b"ENCRYPTED" in key and files.password is not None:
            problem = f"the password does not open the private key in {_show(key_name)}"
        else:
            reason = error.reason or "damaged"
            problem = (
                f"the certificate in {_show(files.certfile)} or the private key in "
                f"{_show(key_name)} cannot be used: {reason}"
            )
        raise ValueError(problem) from error


def _load_authorities(
    context: "ssl.SSLContext", cafile: FileName | None, capath: FileName | None
) -> None:
    import ssl

    if cafile is None and capath is None:
        return
    if cafile is not None:
        _read(cafile, "authorities' certificates")
    if capath is not None and not Path(capath).is_dir():
        # OpenSSL would look there when a client has come, and find nobody.
        raise NotADirectoryError(
            errno.ENOTDIR, "cannot read the authorities' directory: no such directory", str(capath)
        )
    try:
        context.load_verify_locations(cafile, capath)
    except ssl.SSLError as error:
        raise ValueError(f"{_show(cafile)} holds no certificates in PEM form") from error


class _NoPasswordError(Exception):
    """The key is encrypted."""


def _no_password() -> str:
    raise _NoPasswordError


def _read(name: FileName, what: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        reason = f"cannot read the {what}: {error.strerror}"
        raise OSError(error.errno, reason, os.fspath(name)) from error


def _show(name: FileName | None) -> str:
    return repr(os.fspath(name or ""))
