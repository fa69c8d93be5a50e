"""The commands of `python -m pycoronet`, one module each with `add_parser(subparsers)`."""

import argparse
import sys
from collections.abc import Sequence
from platform import python_version
from typing import NoReturn

from .. import __version__

__all__ = ["CommandError", "main"]

DESCRIPTION = """\
Serve connections, or files, from the command line.

  python -m pycoronet serve app:handler               a handler of yours: app.py, handler()
  python -m pycoronet httpd /srv/www                  the files of a directory, by HTTP
  python -m pycoronet stats 127.0.0.1:9100            what a server counts, live
  python -m pycoronet ps 4711                         what the tasks of a process wait for
  python -m pycoronet top 4711                        which of them use the CPU, live

Each command tells more with --help.
"""


class CommandError(Exception):
    """A command cannot be carried out; the text is one line."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


class _Parser(argparse.ArgumentParser):
    """A parser that shows descriptions as they are written, and errors in one line."""

    def __init__(self, **options: object) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help tells more)\n")


def _make_parser() -> argparse.ArgumentParser:
    from . import httpd, ps, serve, stats, top

    parser = _Parser(
        prog="pycoronet", usage="python -m pycoronet COMMAND ...", description=DESCRIPTION
    )
    version = f"pycoronet {__version__}, Python {python_version()}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", prog="pycoronet"
    )
    for module in (serve, httpd, stats, ps, top):
        module.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out what the command line says, sys.argv's by default; return the exit status.

    0: done, also if Ctrl-C was what ended it. 1: it could not be done. 2: it was not
    understood.
    """
    parser = _make_parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        status: int = options.run(options)
    except CommandError as error:
        print(f"pycoronet {options.command}: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return 130  # before there was anything to be ended well
    return status
