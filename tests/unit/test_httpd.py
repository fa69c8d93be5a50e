"""Static files: which name leads where, conditions, ranges, lists."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from connections import count_descriptors

pytest.importorskip("h11", reason="h11, the parser of pycoronet[http], is not installed")

from pycoronet._http import FileBody, HTTPError, Request, Response
from pycoronet.httpd import Directory

MODIFIED = 1_700_000_000


class Site:
    """A directory, and what it answers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.options: dict[str, Any] = {}
        self.write("page.html", "<p>page</p>")

    def write(self, name: str, content: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        os.utime(path, (MODIFIED, MODIFIED))
        return path

    def ask(self, target: str, method: str = "GET", **headers: str) -> Response:
        lines = [
            (name.lower().replace("_", "-").encode(), value.encode())
            for name, value in headers.items()
        ]
        return Directory(self.path, **self.options).respond(Request(method, target, lines, b""))

    def get(self, target: str, **headers: str) -> tuple[int, str]:
        """Return the status and the body as text."""
        try:
            response = self.ask(target, **headers)
        except HTTPError as error:
            return error.status, ""
        return response.status, body_of(response)

    def refuses(self, target: str, method: str = "GET") -> HTTPError:
        with pytest.raises(HTTPError) as caught:
            self.ask(target, method)
        return caught.value


def body_of(response: Response) -> str:
    if not isinstance(response.body, FileBody):
        return response.body.decode()
    with response.body.file as file:
        file.seek(response.body.offset)
        return file.read(response.body.length).decode()


def header_of(response: Response, name: str) -> str | None:
    return dict(response.headers).get(name)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "www").mkdir()
    return Site(tmp_path / "www")


# Which file.


@pytest.mark.parametrize(
    "target",
    [
        "/page.html",
        "/page.html?a=/../b",
        "//page.html",
        "/p%61ge.html",
        "http://host/page.html",
        "HTTPS://host:1/page.html",
    ],
)
def test_httpd_names_lead_to_the_file(site, target):
    assert site.get(target) == (200, "<p>page</p>")


@pytest.mark.parametrize("target", ["page.html", "*", "ftp://host/page.html", "host:443"])
def test_httpd_what_is_no_path_is_a_bad_request(site, target):
    assert site.refuses(target).status == 400


@pytest.mark.parametrize(
    "target",
    [
        "/nothing",
        "/page.html/",
        "/page.html/x",
        "/../secret",
        "/..",
        "/sub/../../secret",
        "/sub/../page.html",
        "/%2e%2e/secret",
        "/.%2E/secret",
        "/..%2fsecret",
        "/sub%2fpage.html",
        "/page.html%00.png",
        "/./page.html",
        "/" + "x" * 300,
        "/" + "x/" * 3000,
        "/%ff%fe",
    ],
)
@pytest.mark.parametrize("options", [{}, {"hidden": True}, {"follow_symlinks": True}])
def test_httpd_what_is_not_to_be_had_is_not_there(site, target, options):
    site.write("../secret", "secret")
    site.write("sub/page.html", "page")
    site.options = options
    assert site.refuses(target).status == 404


def test_httpd_hidden_names_are_not_there_unless_asked_for(site):
    for name in (".env", ".git/config", "sub/.well-known/x", ".well-known/acme"):
        site.write(name, name)
    (site.path / "link").symlink_to(".env")
    targets = ["/.env", "/%2eenv", "/.git/config", "/sub/.well-known/x", "/link"]
    assert [site.get(target)[0] for target in targets] == [404] * 5
    assert site.get("/.well-known/acme") == (200, ".well-known/acme")
    site.options = {"hidden": True}
    assert [site.get(target)[0] for target in targets] == [200] * 5


def test_httpd_links_are_followed_only_inside(site):
    site.write("../secret", "secret")
    site.write("../outside/file", "secret")
    site.write("../www2/file", "secret")  # its name only begins like the directory's
    site.write("sub/file", "inside")
    for name, goal in {
        "in": "sub/file",
        "folder": "sub",
        "out": "../secret",
        "away": "../outside",
        "beside": "../www2/file",
        "absolute": str(site.path.parent / "secret"),
        "lost": "nowhere",
        "round": "round",
    }.items():
        (site.path / name).symlink_to(goal)
    inside, outside = ["/in", "/folder/file"], ["/out", "/away/file", "/beside", "/absolute"]
    assert [site.get(target) for target in inside] == [(200, "inside")] * 2
    assert [site.get(target) for target in outside] == [(404, "")] * 4
    assert [site.get(target)[0] for target in ("/lost", "/round")] == [404] * 2
    site.options = {"follow_symlinks": True}
    assert [site.get(target) for target in inside] == [(200, "inside")] * 2
    assert [site.get(target) for target in outside] == [(200, "secret")] * 4
    assert [site.get(target)[0] for target in ("/lost", "/round")] == [404] * 2


def test_httpd_link_that_appears_behind_the_check_is_not_followed(site, monkeypatch):
    site.write("../secret", "secret")
    file = site.write("sub/file", "inside")
    (site.path / "link").symlink_to("sub/file")
    assert site.get("/link") == (200, "inside")
    resolve = Directory._resolve

    def resolve_then_swap(self: Directory, root: Path, names: list[str]) -> list[str]:
        found = resolve(self, root, names)
        file.unlink()
        file.symlink_to("../../secret")
        return found

    monkeypatch.setattr(Directory, "_resolve", resolve_then_swap)
    assert site.refuses("/link").status == 404


def test_httpd_directory_may_be_a_link_that_moves(site, tmp_path):
    site.write("../new/page.html", "new")
    current = tmp_path / "current"
    current.symlink_to("www")
    directory = Directory(current)
    request = Request("GET", "/page.html", [], b"")
    assert body_of(directory.respond(request)) == "<p>page</p>"
    current.unlink()
    current.symlink_to("new")
    assert body_of(directory.respond(request)) == "new"


def test_httpd_what_is_no_file_is_not_there(site):
    os.mkfifo(site.path / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.path.relpath(site.path / "socket"))
    assert site.refuses("/fifo").status == 404
    assert site.refuses("/socket").status == 404


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (errno.EACCES, 403),
        (errno.EPERM, 403),
        (errno.EMFILE, 503),
        (errno.ELOOP, 404),
        (errno.EOPNOTSUPP, 404),
        (errno.EILSEQ, 404),
    ],
)
def test_httpd_each_error_has_its_status(site, monkeypatch, number, status):
    def fail(*arguments: object, **options: object) -> int:
        raise OSError(number, os.strerror(number))

    directory = Directory(site.path)
    monkeypatch.setattr("os.open", fail)
    with pytest.raises(HTTPError) as caught:
        directory.respond(Request("GET", "/page.html", [], b""))
    assert caught.value.status == status


def test_httpd_error_that_nobody_foresaw_is_raised(site, monkeypatch):
    def fail(*arguments: object, **options: object) -> int:
        raise OSError(errno.EIO, "the disk is broken")

    directory = Directory(site.path)
    monkeypatch.setattr("os.open", fail)
    with pytest.raises(OSError, match="the disk is broken"):
        directory.respond(Request("GET", "/page.html", [], b""))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "get"])
def test_httpd_other_methods_are_refused(site, method):
    error = site.refuses("/page.html", method)
    assert (error.status, error.headers) == (405, [("Allow", "GET, HEAD")])


def test_httpd_directory_that_is_none_is_refused_at_once(site):
    with pytest.raises(FileNotFoundError, match="nothing"):
        Directory(site.path / "nothing")
    with pytest.raises(NotADirectoryError):
        Directory(site.path / "page.html")


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.png", "image/png"),
        ("a.json", "application/json"),
        ("a.tar.gz", "application/gzip"),
        ("a.txt.bz2", "application/octet-stream"),
        ("README", "application/octet-stream"),
    ],
)
def test_httpd_content_type_is_what_the_name_says(site, name, content_type):
    site.write(name, "x")
    response = site.ask("/" + name)
    body_of(response)
    assert header_of(response, "Content-Type") == content_type
    assert header_of(response, "X-Content-Type-Options") == "nosniff"


# Folders.


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/sub", "/sub/"),
        ("/sub?a=b", "/sub/?a=b"),
        ("//sub", "/sub/"),
        ("/%73ub", "/sub/"),
        ("/sub/%5cevil%0d%0a", "/sub/%5Cevil%0D%0A/"),
    ],
)
def test_httpd_folder_without_a_slash_is_redirected(site, target, location):
    (site.path / "sub" / "\\evil\r\n").mkdir(parents=True)
    error = site.refuses(target)
    assert (error.status, error.headers) == (301, [("Location", location)])


def test_httpd_folder_is_answered_with_its_index(site):
    site.write("sub/index.html", "index")
    assert site.get("/sub/") == (200, "index")
    site.options = {"listing": False}
    assert site.get("/sub/") == (200, "index")


def test_httpd_folder_without_an_index_is_listed_or_not_there(site):
    status, page = site.get("/")
    assert (status, "page.html" in page) == (200, True)
    site.options = {"listing": False}
    assert site.refuses("/").status == 404


def test_httpd_index_that_is_a_folder_is_none(site):
    (site.path / "index.html").mkdir()
    assert 'href="index.html/"' in site.get("/")[1]
    site.options = {"listing": False}
    assert site.refuses("/").status == 404


def test_httpd_index_that_leads_outside_is_none(site):
    site.write("../secret", "secret")
    (site.path / "index.html").symlink_to("../secret")
    status, page = site.get("/")
    assert (status, "secret" in page, "index.html" in page) == (200, False, False)


def test_httpd_list_is_sorted_and_escaped(site):
    for name in ("b.txt", "A.txt", '<i>&".txt', "z/x", ".hidden", "per%cent", "a b"):
        site.write(name, "12345")
    site.write("../secret", "secret")
    (site.path / "out").symlink_to("../secret")
    (site.path / "in").symlink_to("b.txt")
    (site.path / "lost").symlink_to("nowhere")
    page = site.get("/")[1]
    links = [part.split('"')[0] for part in page.split('href="')[1:]]
    assert links == [
        "z/",
        "%3Ci%3E%26%22.txt",
        "a%20b",
        "A.txt",
        "b.txt",
        "in",
        "page.html",
        "per%25cent",
    ]
    assert "&lt;i&gt;&amp;&quot;.txt</a></td><td>5</td><td>2023-11-14 22:13</td>" in page
    assert "<i>" not in page
    assert [site.get("/" + link)[0] for link in links] == [200] * 8


def test_httpd_list_of_a_folder_leads_up(site):
    site.write("<b>/x", "x")
    page = site.get("/%3Cb%3E/")[1]
    assert "<title>Index of /&lt;b&gt;/</title>" in page
    assert '<a href="../">../</a>' in page


@pytest.mark.linux_only  # macOS has no such names
def test_httpd_list_shows_names_in_other_encodings(site):
    (site.path / os.fsdecode(b"na\xefve")).write_text("latin")
    page = site.get("/")[1]
    assert 'href="na%EFve">na\N{REPLACEMENT CHARACTER}ve<' in page
    assert site.get("/na%EFve") == (200, "latin")


# Conditions.


def date(shift: int = 0) -> str:
    return formatdate(MODIFIED + shift, usegmt=True)


def test_httpd_file_says_its_version(site):
    response = site.ask("/page.html")
    body_of(response)
    assert header_of(response, "Last-Modified") == date()
    tag = header_of(response, "ETag")
    assert tag is not None
    site.write("page.html", "<p>another</p>")
    changed = site.ask("/page.html")
    body_of(changed)
    assert header_of(changed, "ETag") != tag


def test_httpd_file_of_the_future_is_from_now(site, monkeypatch):
    monkeypatch.setattr("time.time", lambda: MODIFIED - 50)
    response = site.ask("/page.html")
    body_of(response)
    assert header_of(response, "Last-Modified") == date(-50)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If_None_Match": "{tag}"}, 304),
        ({"If_None_Match": "W/{tag}"}, 304),
        ({"If_None_Match": '"other", {tag}'}, 304),
        ({"If_None_Match": "*"}, 304),
        ({"If_None_Match": '"other"'}, 200),
        ({"If_None_Match": '"other"', "If_Modified_Since": date()}, 200),
        ({"If_None_Match": "{tag}", "If_Modified_Since": date(-1)}, 304),
        ({"If_Modified_Since": date()}, 304),
        ({"If_Modified_Since": date(1)}, 304),
        ({"If_Modified_Since": date(-1)}, 200),
        ({"If_Modified_Since": "yesterday"}, 200),
        ({"If_Modified_Since": "Tue, 14 Nov 99999999 22:13:20 GMT"}, 200),
        ({"If_Match": "{tag}"}, 200),
        ({"If_Match": "*"}, 200),
        ({"If_Match": '"other"'}, 412),
        ({"If_Match": "W/{tag}"}, 412),
        ({"If_Match": "{tag}", "If_Unmodified_Since": date(-1)}, 200),
        ({"If_Match": "{tag}", "If_None_Match": "{tag}"}, 304),
        ({"If_Unmodified_Since": date()}, 200),
        ({"If_Unmodified_Since": date(-1)}, 412),
        ({"If_Unmodified_Since": "now"}, 200),
    ],
)
def test_httpd_conditions_are_kept(site, headers, status):
    response = site.ask("/page.html")
    body_of(response)
    tag = header_of(response, "ETag")
    filled = {name: value.replace("{tag}", str(tag)) for name, value in headers.items()}
    found = site.ask("/page.html", **filled)
    body = body_of(found)
    assert found.status == status
    if status == 200:
        assert body == "<p>page</p>"
    if status == 304:
        assert (header_of(found, "ETag"), body) == (tag, "")


# Ranges.


@pytest.mark.parametrize(
    ("value", "body", "content_range"),
    [
        ("bytes=0-3", "0123", "bytes 0-3/10"),
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=4-", "456789", "bytes 4-9/10"),
        ("bytes=4-100", "456789", "bytes 4-9/10"),
        ("bytes=9-9", "9", "bytes 9-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=-100", "0123456789", "bytes 0-9/10"),
        ("BYTES= 1-2 ", "12", "bytes 1-2/10"),
    ],
)
def test_httpd_range_is_sent_alone(site, value, body, content_range):
    site.write("digits", "0123456789")
    response = site.ask("/digits", Range=value)
    assert (response.status, body_of(response)) == (206, body)
    assert header_of(response, "Content-Range") == content_range


@pytest.mark.parametrize(
    "value",
    [
        "bytes=-",
        "bytes=5-4",
        "bytes=0-1,3-4",
        "bytes=a-b",
        "bytes=1",
        "lines=0-1",
        "bytes=\u00b2-3",
        "bytes=" + "9" * 5000 + "-",
    ],
)
def test_httpd_range_that_is_none_brings_the_whole(site, value):
    site.write("digits", "0123456789")
    assert site.get("/digits", Range=value) == (200, "0123456789")


@pytest.mark.parametrize("value", ["bytes=10-", "bytes=10-20", "bytes=-0"])
def test_httpd_range_beyond_the_end_is_refused(site, value):
    site.write("digits", "0123456789")
    response = site.ask("/digits", Range=value)
    body_of(response)
    assert (response.status, header_of(response, "Content-Range")) == (416, "bytes */10")


def test_httpd_range_of_an_empty_file_is_refused(site):
    site.write("empty", "")
    assert site.get("/empty") == (200, "")
    assert [site.get("/empty", Range=value)[0] for value in ("bytes=0-", "bytes=-1")] == [416] * 2


def test_httpd_range_counts_for_get_alone(site):
    site.write("digits", "0123456789")
    response = site.ask("/digits", "HEAD", Range="bytes=0-3")
    body_of(response)
    assert (response.status, len(response.body)) == (200, 10)


def test_httpd_range_of_another_version_brings_the_whole(site):
    site.write("digits", "0123456789")
    response = site.ask("/digits")
    body_of(response)
    tag = str(header_of(response, "ETag"))
    for condition, status in {
        tag: 206,
        "W/" + tag: 200,
        '"other"': 200,
        date(): 206,
        date(-1): 200,
        date(1): 200,
    }.items():
        assert site.get("/digits", Range="bytes=0-3", If_Range=condition)[0] == status, condition


# What is opened is closed.


def test_httpd_every_answer_closes_what_it_opened(site):
    site.write("sub/index.html", "index")
    (site.path / "empty").mkdir()
    (site.path / "odd" / "index.html").mkdir(parents=True)
    requests: list[Callable[[], object]] = [
        lambda: site.get("/page.html"),
        lambda: site.get("/page.html", Range="bytes=0-1"),
        lambda: site.get("/page.html", Range="bytes=900-"),
        lambda: site.get("/page.html", If_None_Match="*"),
        lambda: site.get("/page.html", If_Match='"x"'),
        lambda: site.get("/page.html/x"),
        lambda: site.get("/page.html/"),
        lambda: site.get("/sub/"),
        lambda: site.get("/sub"),
        lambda: site.get("/empty/"),
        lambda: site.get("/odd/"),
        lambda: site.get("/nothing/x"),
    ]
    before = count_descriptors()
    for request in requests:
        request()
        assert count_descriptors() == before


def test_httpd_file_that_cannot_be_measured_is_closed(site, monkeypatch):
    def fail(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr("pycoronet._http_files._respond", fail)
    before = count_descriptors()
    with pytest.raises(MemoryError):
        site.ask("/page.html")
    assert count_descriptors() == before
