"""Handlers that are named by a text: "MODULE:NAME", imported where they are to serve.

A server of several processes has its workers do that, each for itself. So the master has
loaded nothing of it, and new workers load what the files say by then.
"""

import difflib
import importlib
import traceback
from types import ModuleType
from typing import Any

__all__ = ["HandlerError", "load_handler"]


class HandlerError(ImportError):
    """There is no such handler; why, in one line."""


def load_handler(text: str) -> Any:
    """Import the handler that a text names: "app:handler", "package.app:factory.handler".

    Raises HandlerError, whatever the module raises. Blocks while files are read.
    """
    module_name, _, path = text.partition(":")
    if not module_name or not path:
        raise HandlerError(f"{text!r} is no handler: say MODULE:NAME, such as app:handler")
    module = found = _import(module_name)
    for name in path.split("."):
        if not hasattr(found, name):
            raise HandlerError(f"{_describe(module)} has no {path!r}{_suggest(found, name)}")
        found = getattr(found, name)
    if not callable(found) and not hasattr(found, "on_data"):
        raise HandlerError(f"{text} cannot be called: it is {_with_article(found)}")
    return found


def _import(name: str) -> ModuleType:
    importlib.invalidate_caches()  # the files may be newer than this process
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise HandlerError(
                f"there is no module {error.name!r} (--app-dir says where)"
            ) from None
        raise _explain(name, error) from error
    except (Exception, SystemExit) as error:
        raise _explain(name, error) from error


def _explain(name: str, error: BaseException) -> HandlerError:
    """Return what a module failed with, and where in it."""
    text = str(error).partition("\n")[0]
    reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, SyntaxError):
        reason = f"SyntaxError: {error.msg}"
        return HandlerError(f"{error.filename}, line {error.lineno}: {reason}")
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen") and frame.filename != importlib.__file__
    ][1:]
    if not frames:
        return HandlerError(f"module {name!r} cannot be imported: {reason}")
    return HandlerError(f"{frames[-1].filename}, line {frames[-1].lineno}: {reason}")


def _describe(module: ModuleType) -> str:
    file = getattr(module, "__file__", None)
    return f"module {module.__name__!r}" + (f" ({file})" if file else "")


def _suggest(owner: Any, name: str) -> str:
    close = difflib.get_close_matches(name, dir(owner), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _with_article(value: Any) -> str:
    name = type(value).__name__
    return ("an " if name[0].lower() in "aeiou" else "a ") + name
