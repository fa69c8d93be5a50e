"""Certificates for the tests of TLS, made by the openssl command when they are needed."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


def is_possible() -> bool:
    """Say whether the openssl command is there."""
    return shutil.which("openssl") is not None


class Certificates:
    """A test authority and what it has signed: PEM files in one folder.

    `server` is for localhost, 127.0.0.1 and ::1; `expired` is too, but was for yesterday;
    `elsewhere` is for elsewhere.example; `client` is for a client.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = folder / "authority.pem"
        self._run(
            *("req", "-x509", *_KEY, "-keyout", "authority.key", "-out", "authority.pem"),
            *("-subj", "/CN=Test authority", "-days", "30"),
            *("-addext", "basicConstraints=critical,CA:TRUE"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )
        here = "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"
        self.server = self._sign("server", here)
        self.expired = self._sign("expired", here, days=-1)
        self.elsewhere = self._sign("elsewhere", "subjectAltName=DNS:elsewhere.example")
        self.client = self._sign("client", "extendedKeyUsage=clientAuth")

    def _run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def _sign(self, name: str, extension: str, days: int = 30) -> Path:
        """Return a file with a certificate and its key."""
        request, key, signed = (f"{name}.{end}" for end in ("csr", "key", "crt"))
        (self.folder / f"{name}.ext").write_text(f"{extension}\n", "ascii")
        self._run("req", *_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        self._run(
            *("x509", "-req", "-in", request, "-out", signed, "-days", str(days)),
            *("-CA", "authority.pem", "-CAkey", "authority.key", "-CAcreateserial"),
            *("-extfile", f"{name}.ext"),
        )
        both = self.folder / f"{name}.pem"
        both.write_text((self.folder / signed).read_text() + (self.folder / key).read_text())
        return both

    def server_context(self, path: Path | None = None) -> ssl.SSLContext:
        """Return a server's context, with another certificate than `server` if one is given."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path or self.server)
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return a client's context, which trusts the test authority and verifies."""
        return ssl.create_default_context(cafile=str(self.authority))
