"""Finds the public names, and members of classes, that the reference does not have."""

from __future__ import annotations

import importlib
import inspect
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


def members(thing: Any) -> list[str]:
    """Return what has a docstring in a class of ours: methods, properties, attributes in C."""
    if not inspect.isclass(thing) or not thing.__module__.startswith("pycoronet"):
        return []
    own = {name: value for name, value in vars(thing).items() if not name.startswith("_")}
    return [
        name
        for name, value in own.items()
        if isinstance(value, (classmethod, staticmethod))
        or (hasattr(value, "__get__") and value.__doc__ is not None)
    ]


def missing(documented: Collection[str]) -> list[str]:
    """Return what has not been documented by any of its names, and is no member of such."""
    public = places()
    found: dict[int, list[str]] = {}
    for name, thing in public.items():
        if name in documented:
            found.setdefault(id(thing), []).append(name)
    result = []
    for name, thing in public.items():
        if name in documented:
            homes = found[id(thing)]
            result += [
                f"{name}.{member}"
                for member in members(thing)
                if name == homes[0] and not any(f"{home}.{member}" in documented for home in homes)
            ]
        elif isinstance(thing, (int, str)) or id(thing) not in found:
            result.append(name)
    return result
