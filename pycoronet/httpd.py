"""A web server for the files of a directory, as a handler for `Server` and `serve`.

    from pycoronet import Server
    from pycoronet.httpd import Directory

    Server(("127.0.0.1", 8000), Directory("/srv/www")).serve_forever()

`python -m pycoronet httpd DIR` does the same. It needs h11: pip install 'pycoronet[http]'.
"""

import errno
import html
import mimetypes
import os
import stat
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from ._coronet import sk_conn
from ._http import HTTPError, Request, Response, serve_http
from ._http_files import guess_content_type, make_file_response

__all__ = ["Directory"]

_INDEX = "index.html"

# The one name with a dot that is meant to be asked for (RFC 8615).
_WELL_KNOWN = ".well-known"

# Opening a FIFO must not stop the server.
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK

# On the way to a file it is enough that a folder may be passed through.
_PASS_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC

# What opening a link fails with that must not be followed; EMLINK is FreeBSD's.
_LINK_ERRORS = frozenset({errno.ELOOP, errno.EMLINK, errno.ENOTDIR})

# What opening fails with when there is nothing that could be served by this name: also a
# socket (the BSDs have EOPNOTSUPP), and bytes that macOS lets no name have.
_NOT_THERE = _LINK_ERRORS | {
    errno.ENOENT,
    errno.ENAMETOOLONG,
    errno.ENXIO,
    errno.EOPNOTSUPP,
    errno.EILSEQ,
}
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>td {{ padding-right: 2em }} td + td {{ text-align: right; white-space: nowrap }}</style>
</head>
<body>
<h1>{title}</h1>
<table>
{rows}
</table>
</body>
</html>
"""


class Directory:
    """Answer GET and HEAD with the files below a directory; called as handler(conn, address).

    path: the directory. A folder in it is answered with its index.html, or with a list of
    what is in it; listing=False leaves the list out.
    follow_symlinks: True also serves what links outside the directory lead to; links that
    stay inside are followed in any case.
    hidden: True also serves names that begin with a dot. `.well-known` is served always.

    Conditional requests and single byte ranges are understood. What must not be seen is
    answered with 404, as what is not there. Raises NotADirectoryError, FileNotFoundError or
    PermissionError if there is no such directory or it cannot be entered.

    Source: pycoronet's own.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        listing: bool = True,
        follow_symlinks: bool = False,
        hidden: bool = False,
    ) -> None:
        self._path = Path(path).absolute()
        self._listing = listing
        self._follow_symlinks = follow_symlinks
        self._hidden = hidden
        if not mimetypes.inited:
            mimetypes.init()  # reads files, so not while serving
        os.close(os.open(self._path, _PASS_FLAGS))

    def __call__(self, conn: sk_conn, address: Any) -> None:
        """Serve a client until one of us wants no more. Switches."""
        serve_http(conn, self.respond, server=conn.server)

    def respond(self, request: Request) -> Response:
        """Return the response to a request; raises HTTPError. Never switches."""
        if request.method not in ("GET", "HEAD"):
            raise HTTPError(405, [("Allow", "GET, HEAD")])
        path, mark, query = _path_of(request.target).partition("?")
        names = self._split(path)
        is_folder_meant = path.endswith("/")
        fd = self._open(names)
        kind = stat.S_IFMT(os.fstat(fd).st_mode)
        if kind == stat.S_IFREG and not is_folder_meant:
            return _respond_with_file(request, fd, names[-1])
        try:
            if kind != stat.S_IFDIR:
                raise HTTPError(404)
            if not is_folder_meant:
                raise HTTPError(301, [("Location", _quote_path(names, "/") + mark + query)])
            return self._respond_with_folder(request, fd, names)
        finally:
            os.close(fd)

    def _respond_with_folder(self, request: Request, folder: int, names: list[str]) -> Response:
        try:
            index = self._open([*names, _INDEX])
        except HTTPError as error:
            if error.status != 404 or not self._listing:
                raise
        else:
            if stat.S_ISREG(os.fstat(index).st_mode):
                return _respond_with_file(request, index, _INDEX)
            os.close(index)
            if not self._listing:
                raise HTTPError(404)
        page = self._make_list(folder, names)
        return Response(200, [("Content-Type", "text/html; charset=utf-8")], page)

    # --- Names --------------------------------------------------------------------------

    def _split(self, path: str) -> list[str]:
        """Return the names that a path consists of, decoded; raises HTTPError."""
        names = []
        for piece in path.split("/"):
            name = unquote_to_bytes(piece)
            if b"/" in name or b"\0" in name or name in (b".", b".."):
                raise HTTPError(404)
            if name:
                names.append(os.fsdecode(name))
        self._check_hidden(names)
        return names

    def _check_hidden(self, names: list[str]) -> None:
        for place, name in enumerate(names):
            is_meant = self._hidden or (place == 0 and name == _WELL_KNOWN)
            if name.startswith(".") and not is_meant:
                raise HTTPError(404)

    def _open(self, names: list[str]) -> int:
        """Open what the names lead to; raises HTTPError."""
        try:
            if self._follow_symlinks:
                return os.open(self._path.joinpath(*names), _OPEN_FLAGS)
            try:
                return _open_below(self._path, names)
            except OSError as error:
                if error.errno not in _LINK_ERRORS:
                    raise
                root = self._path.resolve()
                return _open_below(root, self._resolve(root, names))
        except PermissionError:
            raise HTTPError(403) from None
        except OSError as error:
            if error.errno in _NOT_THERE:
                raise HTTPError(404) from None
            if error.errno in _SHORTAGES:
                raise HTTPError(503, [("Retry-After", "1")]) from None
            raise

    def _resolve(self, root: Path, names: list[str]) -> list[str]:
        """Return the names without links in them; raises HTTPError if they leave the root."""
        try:
            path = root.joinpath(*names).resolve()
        except RuntimeError:  # links that lead in a circle
            raise HTTPError(404) from None
        if not path.is_relative_to(root):
            raise HTTPError(404)
        real_names = list(path.relative_to(root).parts)
        self._check_hidden(real_names)
        return real_names

    # --- Lists --------------------------------------------------------------------------

    def _make_list(self, folder: int, names: list[str]) -> bytes:
        """Return the page that lists an open folder."""
        found = []
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    if self._is_served([*names, entry.name], entry.is_symlink()):
                        found.append((entry.name, entry.stat()))
                except OSError:
                    pass  # it is gone, or a link that leads nowhere
        found.sort(
            key=lambda pair: (not stat.S_ISDIR(pair[1].st_mode), pair[0].casefold(), pair[0])
        )
        rows = ['<tr><td><a href="../">../</a></td></tr>'] if names else []
        rows += [_make_row(name, status) for name, status in found]
        title = html.escape("Index of /" + "".join(f"{_show(name)}/" for name in names))
        return _PAGE.format(title=title, rows="\n".join(rows)).encode()

    def _is_served(self, names: list[str], is_link: bool) -> bool:
        try:
            self._check_hidden(names)
            if is_link and not self._follow_symlinks:
                self._resolve(self._path.resolve(), names)
        except HTTPError:
            return False
        return True


def _path_of(target: str) -> str:
    """Return path and query of a request's target, which may be a whole URL for proxies."""
    if target.startswith("/"):
        return target
    scheme, mark, rest = target.partition("://")
    if not mark or scheme.lower() not in ("http", "https"):
        raise HTTPError(400)
    return "/" + rest.partition("/")[2]


def _quote_path(names: list[str], end: str) -> str:
    # Put together anew: "//host/" would lead a client elsewhere.
    return "".join("/" + quote(os.fsencode(name), safe="") for name in names) + end


def _show(name: str) -> str:
    """Return a file's name as text, where it is not in the system's encoding, too."""
    return os.fsencode(name).decode("utf-8", "replace")


def _open_below(root: Path, names: list[str]) -> int:
    """Open what the names lead to from root, and follow no link on the way."""
    fd = os.open(root, _PASS_FLAGS if names else _OPEN_FLAGS)
    for place, name in enumerate(names, start=1):
        flags = _OPEN_FLAGS if place == len(names) else _PASS_FLAGS
        try:
            inner = os.open(name, flags | os.O_NOFOLLOW, dir_fd=fd)
        finally:
            os.close(fd)
        fd = inner
    return fd


def _respond_with_file(request: Request, fd: int, name: str) -> Response:
    file = os.fdopen(fd, "rb", buffering=0)
    return make_file_response(request, file, guess_content_type(name))


def _make_row(name: str, status: os.stat_result) -> str:
    is_folder = stat.S_ISDIR(status.st_mode)
    mark = "/" if is_folder else ""
    link = quote(os.fsencode(name), safe="") + mark
    size = "" if is_folder else f"{status.st_size:,}"
    changed = time.strftime("%Y-%m-%d %H:%M", time.gmtime(max(0, status.st_mtime)))
    shown = html.escape(_show(name) + mark)
    return f'<tr><td><a href="{link}">{shown}</a></td><td>{size}</td><td>{changed}</td></tr>'
