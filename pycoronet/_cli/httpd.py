"""`python -m pycoronet httpd`: the files of a directory by HTTP."""

import argparse
from pathlib import Path
from typing import Any

from . import CommandError
from ._serving import add_server_options, run_server

__all__ = ["add_parser"]

DESCRIPTION = """\
Serve the files of a directory by HTTP.

  python -m pycoronet httpd .                          http://127.0.0.1:8000/
  python -m pycoronet httpd /srv/www --bind :80        on all interfaces
  python -m pycoronet httpd /srv/www --processes auto --tls-cert cert.pem --bind :443

A directory is answered with its index.html, or else with a list of what is in it. Links
that lead outside, and names that begin with a dot, are not served unless you say so.
It needs a parser: pip install 'pycoronet[http]'
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to those of an argparse parser."""
    parser = subparsers.add_parser(
        "httpd",
        help="serve the files of a directory by HTTP",
        usage="python -m pycoronet httpd DIR [OPTION ...]",
        description=DESCRIPTION,
    )
    parser.add_argument("directory", metavar="DIR", help="the directory; . is this one")
    files = parser.add_argument_group("what it serves")
    files.add_argument(
        "--no-listing",
        dest="listing",
        action="store_false",
        help="answer 404 for a directory without index.html",
    )
    files.add_argument(
        "--follow-symlinks",
        action="store_true",
        help="also serve what symbolic links outside DIR lead to",
    )
    files.add_argument(
        "--hidden",
        action="store_true",
        help="also serve names that begin with a dot (.well-known is served always)",
    )
    add_server_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Carry the command out; return its exit status."""
    try:
        from ..httpd import Directory

        directory = Directory(
            options.directory,
            listing=options.listing,
            follow_symlinks=options.follow_symlinks,
            hidden=options.hidden,
        )
    except ModuleNotFoundError as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"{options.directory}: {error.strerror}") from None
    return run_server(options, directory, str(Path(options.directory).resolve()), "http")
