"""A file as the response to a request: whole, in part, or only the word that it is unchanged.

Conditions and ranges as RFC 9110 has them, sections 13 and 14. A request for several ranges
gets the whole file, which it must be prepared for.
"""

import calendar
import mimetypes
import os
import re
import time
from email.utils import parsedate
from typing import IO

from ._http import FileBody, HTTPError, Request, Response, format_date, make_error

__all__ = ["guess_content_type", "make_file_response"]

_ENTITY_TAG = re.compile(r'(?:W/)?"[^"]*"')
_SINGLE_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)


def guess_content_type(name: str) -> str:
    """Return what a file's name says about its content."""
    content_type, encoding = mimetypes.guess_type(name)
    if encoding is not None:
        # Named after the packing: a client that is told of both unpacks what it stores.
        return "application/gzip" if encoding == "gzip" else "application/octet-stream"
    if content_type is None:
        return "application/octet-stream"
    return content_type + "; charset=utf-8" if content_type.startswith("text/") else content_type


def make_file_response(request: Request, file: IO[bytes], content_type: str) -> Response:
    """Return the response to a GET or HEAD of an open file, which closes with it.

    Raises OSError if the file's size and times cannot be had. The file is closed then.
    """
    try:
        status = os.fstat(file.fileno())
        response = _respond(request, file, status, content_type)
    except BaseException:
        file.close()
        raise
    if not isinstance(response.body, FileBody):
        file.close()
    return response


def _respond(
    request: Request, file: IO[bytes], status: os.stat_result, content_type: str
) -> Response:
    size = status.st_size
    modified = int(max(0, min(status.st_mtime, time.time())))
    entity_tag = f'"{status.st_mtime_ns:x}-{size:x}"'
    headers = [("ETag", entity_tag), ("Last-Modified", format_date(modified))]
    unmet = _find_unmet_condition(request, entity_tag, modified)
    if unmet == 304:
        return Response(304, headers)
    if unmet is not None:
        return make_error(unmet)
    headers += [("Accept-Ranges", "bytes"), ("X-Content-Type-Options", "nosniff")]
    try:
        part = _find_range(request, entity_tag, modified, size)
    except HTTPError as error:
        return make_error(error.status, error.headers)
    headers.append(("Content-Type", content_type))
    if part is None:
        return Response(200, headers, FileBody(file, 0, size))
    start, end = part
    headers.append(("Content-Range", f"bytes {start}-{end - 1}/{size}"))
    return Response(206, headers, FileBody(file, start, end - start))


def _find_unmet_condition(request: Request, entity_tag: str, modified: int) -> int | None:
    """Return the status that a condition of the request asks for, None if all are met."""
    wanted = request.header("If-Match")
    limit = _parse_date(request.header("If-Unmodified-Since"))
    if wanted is not None:
        if wanted != "*" and entity_tag not in _ENTITY_TAG.findall(wanted):
            return 412
    elif limit is not None and modified > limit:
        return 412
    known = request.header("If-None-Match")
    since = _parse_date(request.header("If-Modified-Since"))
    if known is not None:
        tags = [tag.removeprefix("W/") for tag in _ENTITY_TAG.findall(known)]
        if known == "*" or entity_tag in tags:
            return 304
    elif since is not None and modified <= since:
        return 304
    return None


def _find_range(
    request: Request, entity_tag: str, modified: int, size: int
) -> tuple[int, int] | None:
    """Return where the wanted part begins and ends, None for the whole; raises HTTPError."""
    found = _SINGLE_RANGE.fullmatch(request.header("Range") or "")
    if request.method != "GET" or found is None or found[1] == found[2] == "":
        return None
    condition = request.header("If-Range")
    if condition is not None and condition != entity_tag and _parse_date(condition) != modified:
        return None
    if found[1]:
        start, end = int(found[1]), min(int(found[2] or size), size - 1) + 1
        if found[2] and int(found[2]) < start:
            return None  # no range at all
    else:
        start, end = max(0, size - int(found[2])), size
    if start >= end:
        raise HTTPError(416, [("Content-Range", f"bytes */{size}")])
    return start, end


def _parse_date(text: str | None) -> int | None:
    """Return a date in seconds; None for what is none, which is as if it were not there."""
    parts = parsedate(text) if text else None
    if parts is None:
        return None
    try:
        return calendar.timegm(parts)
    except (ValueError, OverflowError):
        return None
