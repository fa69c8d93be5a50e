"""What a benchmark runs in: its own virtual environment, its C programs, the machine."""

import datetime
import os
import pathlib
import platform
import shutil
import subprocess

from processes import HERE, SERVER_CORE

ROOT = HERE.parent
VENV = HERE / ".venv"
PYTHON = VENV / "bin" / "python"

ABOUT_PYTHON = """
import platform, sys
print(platform.python_implementation(), *sys.version.split("\\n"))
print(sys.base_prefix)
"""
ABOUT_PACKAGES = """
from importlib.metadata import distributions
wanted = {"pycoronet", "gevent", "eventlet", "uvloop", "trio", "greenlet"}
found = {f"{each.name} {each.version}" for each in distributions() if each.name in wanted}
print(*sorted(found), sep=", ")
"""


def run(*command):
    subprocess.run([str(word) for word in command], check=True)


def read_output(*command):
    words = [str(word) for word in command]
    try:
        return subprocess.run(words, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return ""


def make_venv(python, with_project):
    """Make or update the environment: the peers, and the project if asked for."""
    wanted = read_output(python, "-c", ABOUT_PYTHON)
    if read_output(PYTHON, "-c", ABOUT_PYTHON) != wanted:
        run(python, "-m", "venv", "--clear", VENV)
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run(*pip, "-r", HERE / "requirements.txt")
    if with_project:
        run(*pip, ROOT)


def make_certificate(folder):
    """Return a new file in `folder` with a certificate and its key; None without openssl."""
    if shutil.which("openssl") is None:
        return None
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"]
    command += ["-subj", "/CN=localhost", "-out", certificate, "-keyout", key]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    certificate.write_text(certificate.read_text() + key.read_text())
    return certificate


def build_c_programs():
    run("make", "--quiet", "-C", HERE / "c", "programs")


def read_cpu_model():
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def describe_machine():
    """Return what a reader needs to judge figures of C programs, as a dict of texts."""
    commit = read_output("git", "-C", ROOT, "rev-parse", "--short=12", "HEAD")
    changed = read_output("git", "-C", ROOT, "status", "--porcelain", "-uno")
    pinned = "server and load on a core each" if SERVER_CORE is not None else "not pinned"
    return {
        "date": datetime.date.today().isoformat(),
        "commit": (commit or "unknown") + (" with changes" if changed else ""),
        "machine": f"{read_cpu_model()}, {os.cpu_count()} cores, {pinned}",
        "kernel": f"{platform.system()} {platform.release()}",
        "compiler": read_output("cc", "--version").partition("\n")[0],
    }


def describe():
    """Return the same and what Python and which packages are measured."""
    return describe_machine() | {
        # The prefix tells two interpreters apart, but is no reader's business.
        "python": read_output(PYTHON, "-c", ABOUT_PYTHON).partition("\n")[0],
        "packages": read_output(PYTHON, "-c", ABOUT_PACKAGES),
    }
