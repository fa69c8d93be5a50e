"""Finds the public names that the reference does not have."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection
from typing import Any

import pycoronet


def find_modules() -> list[Any]:
    """Return the package and those of its modules whose names say that they are public."""
    names = [module.name for module in pkgutil.iter_modules(pycoronet.__path__)]
    public = [f"pycoronet.{name}" for name in names if not name.startswith("_")]
    return [pycoronet, *map(importlib.import_module, public)]


def places() -> dict[str, Any]:
    """Return what is public by each of its names: in the package, in a module of its own."""
    return {
        f"{module.__name__}.{name}": getattr(module, name)
        for module in find_modules()
        for name in getattr(module, "__all__", ())
    }


def missing(documented: Collection[str]) -> list[str]:
    """Return the names of what has not been documented by any of its names."""
    public = places()
    found = {id(thing) for name, thing in public.items() if name in documented}
    return [
        name
        for name, thing in public.items()
        if name not in documented and (isinstance(thing, (int, str)) or id(thing) not in found)
    ]
