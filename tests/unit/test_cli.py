"""The command line: what it understands, what it makes of it, and how it says no."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pycoronet
from pycoronet import _cli
from pycoronet._cli import main
from pycoronet.server import CertificateFiles

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

APP = """
import sys
from pycoronet import Protocol

def handler(conn, address):
    pass

class Echo(Protocol):
    pass
"""


class FakeServer:
    """Notes what a Server would get; serving ends at once, or as a test says."""

    made: list[FakeServer]
    error: BaseException | None = None

    def __init__(self, address: Any, handler: Any, **settings: Any) -> None:
        self.address, self.handler, self.settings = address, handler, settings
        self.addresses: list[Any] = [("127.0.0.1", 8000), ("::1", 8000, 0, 0), "/run/s"]
        self.made.append(self)

    def listen(self) -> None:
        if self.error is not None:
            raise self.error

    def serve_forever(self) -> None:
        raise KeyboardInterrupt


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> list[FakeServer]:
    """Return the servers that commands make, which do not serve."""
    FakeServer.made = []
    monkeypatch.setattr("pycoronet._cli._serving.Server", FakeServer)
    monkeypatch.setattr("pycoronet._cli._serving.max_capacity", lambda: 1024)
    monkeypatch.setattr("logging.basicConfig", lambda **options: None)
    return FakeServer.made


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take back what commands add to sys.path: programs of later tests get it too."""
    monkeypatch.setattr(sys, "path", sys.path[:])


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    name = f"app_of_a_test_{os.path.basename(tmp_path)}"  # noqa: PTH119
    Path(f"{name}.py").write_text(APP)
    return name


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 2) -> str:
    """Return the one line that is said when a command is refused."""
    try:
        found: object = main(arguments)
    except SystemExit as error:
        found = error.code
    out, err = capsys.readouterr()
    assert (found, out, err.count("\n")) == (status, "", 1), err
    return err.rstrip()


# Help.


def test_cli_without_a_command_shows_the_help(capsys):
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "python -m pycoronet serve app:handler" in err


def test_cli_version_is_told(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"pycoronet {pycoronet.__version__}, Python 3.")


@pytest.mark.parametrize("command", [[], ["serve"], ["httpd"], ["stats"]])
def test_cli_help_begins_with_examples_that_are_right(capsys, command):
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    examples = re.findall(r"^  python -m pycoronet (.*?)(?:  .*)?$", text, re.MULTILINE)
    assert len(examples) >= 2
    assert text.index(examples[0]) < text.index("options:")
    for example in examples:
        options = _cli._make_parser().parse_args(shlex.split(example))
        assert callable(options.run)
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("page", ["README.md", "docs/production.md"])
def test_cli_commands_in_the_docs_are_right(root, page):
    text = (root / page).read_text("utf-8").replace("\\\n", " ")
    commands = re.findall(r"^ .*python -m pycoronet (.*?)(?: +#.*)?$", text, re.MULTILINE)
    assert commands
    for command in commands:
        options = _cli._make_parser().parse_args(shlex.split(command))
        assert callable(options.run)


def test_cli_module_can_be_run():
    # In a process of its own: pytest rewrites the modules of whoever has a plugin for it, and what
    # it loads runpy cannot run.
    command = [sys.executable, "-m", "pycoronet", "--version"]
    assert subprocess.run(command, capture_output=True, check=True).stdout.startswith(b"pycoronet")


# What is not understood.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("bogus", "pycoronet: argument COMMAND: invalid choice: 'bogus'"),
        ("serve", "pycoronet serve: the following arguments are required: MODULE:HANDLER"),
        ("serve a:b --bogus", "pycoronet: unrecognized arguments: --bogus"),
        ("serve a:b --bin x", "pycoronet: unrecognized arguments: --bin x"),
        ("serve a:b --bind 8000", "'8000' is no address: say HOST:PORT"),
        ("serve a:b --bind ::1:8000", "an IPv6 address needs brackets"),
        ("serve a:b --bind :80000", "the port must be a number from 0 to 65535"),
        ("serve a:b --metrics 9100", "argument --metrics: '9100' is no address"),
        ("serve a:b --processes 0", "'0' is no whole number from 1 on"),
        ("serve a:b --processes many", "'many' is no whole number from 1 on"),
        ("serve a:b --max-connections -1", "argument --max-connections: "),
        ("serve a:b --backlog 99999999999", "'99999999999' is no whole number"),
        ("serve a:b --backlog \u0663", "is no whole number"),
        ("serve a:b --idle-timeout 0", "'0' is no number of seconds above 0, nor 'none'"),
        ("serve a:b --idle-timeout inf", "'inf' is no number of seconds"),
        ("serve a:b --total-timeout nan", "'nan' is no number of seconds"),
        ("serve a:b --strategy fork", "argument --strategy: invalid choice: 'fork'"),
        ("serve a:b --tls-verify maybe", "argument --tls-verify: invalid choice: 'maybe'"),
        ("httpd", "pycoronet httpd: the following arguments are required: DIR"),
        ("httpd . --strategy callback", "unrecognized arguments: --strategy callback"),
    ],
)
def test_cli_what_is_not_understood_is_told_in_one_line(capsys, arguments, message):
    assert message in complaint(capsys, *shlex.split(arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--tls-key k.pem", "--tls-key needs --tls-cert"),
        ("--tls-verify required", "--tls-verify needs --tls-cert"),
        ("--tls-ca ca.pem", "--tls-ca needs --tls-cert"),
        ("--tls-cert c.pem --tls-ca ca.pem", "--tls-ca and --tls-verify optional or required go"),
        ("--tls-cert c.pem --tls-verify required", "--tls-ca and --tls-verify optional or"),
        ("--handover /run/x", "--handover needs --processes"),
    ],
)
def test_cli_options_that_do_not_go_together_are_refused(capsys, app, servers, arguments, message):
    said = complaint(capsys, "serve", f"{app}:handler", *arguments.split())
    assert said.startswith(f"pycoronet serve: {message}")
    assert servers == []


# What becomes of it.


def test_cli_serve_without_options_leaves_the_server_its_defaults(app, servers, capsys):
    assert main(["serve", f"{app}:handler"]) == 0
    assert servers[0].address == ["127.0.0.1:8000"]
    assert servers[0].handler == f"{app}:handler"
    assert servers[0].settings == {"tls": None}
    assert capsys.readouterr().err == (
        f"Serving {app}:handler on 127.0.0.1:8000, [::1]:8000, unix:/run/s. Ctrl-C ends it.\n"
    )


def test_cli_serve_hands_every_option_on(app, servers):
    arguments = """--bind :7000 --bind unix:/run/app --backlog 7 --processes 3 --handover /run/h
        --max-connections 100 --max-per-address 10 --idle-timeout 60 --total-timeout 600.5
        --handshake-timeout 5 --drain-timeout none --metrics 127.0.0.1:9100
        --strategy threadpool --poolsize-min 2 --poolsize-max 20"""
    assert main(["serve", f"{app}:handler", *arguments.split()]) == 0
    assert servers[0].address == [":7000", "unix:/run/app"]
    assert servers[0].settings == {
        "tls": None,
        "backlog": 7,
        "processes": 3,
        "handover": "/run/h",
        "max_connections": 100,
        "max_per_address": 10,
        "idle_timeout": 60.0,
        "total_timeout": 600.5,
        "handshake_timeout": 5.0,
        "drain_timeout": None,
        "metrics": "127.0.0.1:9100",
        "strategy": "threadpool",
        "poolsize_min": 2,
        "poolsize_max": 20,
    }


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        ("--tls-cert c.pem", CertificateFiles("c.pem")),
        ("--tls-cert c.pem --tls-key k.pem", CertificateFiles("c.pem", "k.pem")),
        (
            "--tls-cert c.pem --tls-verify optional --tls-ca ca.pem",
            CertificateFiles("c.pem", verify="optional", cafile="ca.pem"),
        ),
    ],
)
def test_cli_certificate_files_are_handed_on(app, servers, arguments, files):
    assert main(["serve", f"{app}:handler", *arguments.split()]) == 0
    assert servers[0].settings == {"tls": files}


@pytest.mark.parametrize("more", [[], ["--processes", "2"]])
def test_cli_protocol_is_served_by_callbacks(app, servers, more):
    for name, strategy in {"Echo": "callback", "handler": None}.items():
        assert main(["serve", f"{app}:{name}", *more]) == 0
        assert servers[-1].settings.get("strategy") == strategy
    assert main(["serve", f"{app}:Echo", "--strategy", "coroutine", *more]) == 0
    assert servers[-1].settings["strategy"] == "coroutine"


def test_cli_processes_can_be_as_many_as_processors(app, servers, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5}, raising=False)
    assert main(["serve", f"{app}:handler", "--processes", "auto"]) == 0
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert main(["serve", f"{app}:handler", "--processes", "auto"]) == 0
    assert [server.settings["processes"] for server in servers] == [3, 1]


def test_cli_with_processes_the_handler_is_imported_by_workers_alone(app, servers):
    assert main(["serve", f"{app}:handler", "--processes", "2"]) == 0
    assert app not in sys.modules
    assert main(["serve", f"{app}:handler"]) == 0
    assert app in sys.modules


@pytest.mark.parametrize("more", [[], ["--processes", "2"]])
def test_cli_handler_that_is_not_there_is_told_before_anything_is_opened(
    app, servers, capsys, more
):
    said = complaint(capsys, "serve", f"{app}:handlr", *more, status=1)
    assert said.endswith("has no 'handlr'; did you mean 'handler'?")
    Path("broken_app_of_a_test.py").write_text("import os; os._exit(3)" if more else "1/0")
    said = complaint(capsys, "serve", "broken_app_of_a_test:x", *more, status=1)
    assert re.search("ended the process$|ZeroDivisionError", said)
    assert servers == []


def test_cli_handler_is_looked_for_in_the_app_directory_first(app, servers, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "json.py").write_text("handler = 3")  # shadows nothing that is loaded
    (tmp_path / "sub" / f"{app}_2.py").write_text("handler = print")
    assert main(["serve", f"{app}_2:handler", "--app-dir", "sub"]) == 0
    assert sys.path[0] == str(tmp_path / "sub")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(98, "cannot listen on :80: it is in use"), "cannot listen on :80: it is in use"),
        (FileNotFoundError(2, "No such file", "cert.pem"), "cert.pem: No such file"),
        (ValueError("poolsize_min is\nmore"), "poolsize_min is more"),
        (RuntimeError("no worker can start"), "no worker can start"),
    ],
)
def test_cli_server_that_cannot_start_is_told_in_one_line(
    app, servers, capsys, monkeypatch, error, message
):
    monkeypatch.setattr(FakeServer, "error", error)
    said = complaint(capsys, "serve", f"{app}:handler", status=1)
    assert said == f"pycoronet serve: {message}"


def test_cli_setting_that_the_server_refuses_is_a_usage_error(app, monkeypatch, capsys):
    def refuse(*arguments: object, **settings: object) -> None:
        raise ValueError("backlog must be at most 5")

    monkeypatch.setattr("pycoronet._cli._serving.Server", refuse)
    assert complaint(capsys, "serve", f"{app}:handler") == (
        "pycoronet serve: backlog must be at most 5"
    )


def test_cli_ctrl_c_before_serving_is_no_traceback(monkeypatch, capsys):
    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pycoronet._cli.serve.load_handler", interrupt)
    assert main(["serve", "a:b"]) == 130
    assert capsys.readouterr() == ("", "")


# The files of a directory.


def test_cli_httpd_serves_the_directory_with_its_options(servers, tmp_path, capsys):
    pytest.importorskip("h11", reason="h11, the parser of pycoronet[http], is not installed")
    assert main(["httpd", str(tmp_path)]) == 0
    directory = servers[0].handler
    assert (directory._listing, directory._follow_symlinks, directory._hidden) == (
        True,
        False,
        False,
    )
    shown = "http://127.0.0.1:8000/, http://[::1]:8000/, unix:/run/s"
    assert capsys.readouterr().err == f"Serving {tmp_path} on {shown}. Ctrl-C ends it.\n"
    options = ["--no-listing", "--follow-symlinks", "--hidden", "--tls-cert", "c.pem"]
    assert main(["httpd", str(tmp_path), *options, "--bind", ":1", "--processes", "2"]) == 0
    directory = servers[1].handler
    assert (directory._listing, directory._follow_symlinks, directory._hidden) == (
        False,
        True,
        True,
    )
    assert servers[1].settings == {"tls": CertificateFiles("c.pem"), "processes": 2}
    assert "https://127.0.0.1:8000/" in capsys.readouterr().err


def test_cli_httpd_without_the_directory_says_so(servers, tmp_path, capsys):
    pytest.importorskip("h11", reason="h11, the parser of pycoronet[http], is not installed")
    said = complaint(capsys, "httpd", str(tmp_path / "nothing"), status=1)
    assert said == f"pycoronet httpd: {tmp_path}/nothing: No such file or directory"


def test_cli_httpd_without_the_parser_says_how_to_get_it(servers, tmp_path, capsys, monkeypatch):
    for name in ("httpd", "_http_files", "_http"):
        monkeypatch.delitem(sys.modules, f"pycoronet.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "h11", None)
    said = complaint(capsys, "httpd", str(tmp_path), status=1)
    assert said.endswith("HTTP needs the parser h11: pip install 'pycoronet[http]'")
