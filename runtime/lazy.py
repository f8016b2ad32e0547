"""Packages whose names are imported only when somebody asks for them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection
from typing import Any

from sfpp.runtime.errors import MissingDependencyError


def names_from(module: str, names: Collection[str], *, extra: str, purpose: str) -> Callable[[str], Any]:
    """Return a package's ``__getattr__``, which takes its names from a module that needs heavy libraries.

    So ``--help`` stays instant, and where a library is missing, the error says what to install.

    Args:
        module: the module that has the names; the package it lies in is the one that offers them.
        names: what the package offers.
        extra: the extra of sfpp that brings the libraries.
        purpose: what they are needed for, as in "exporting a checkpoint".
    """
    package = module.rpartition(".")[0]

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("sfpp"):
                raise
            raise MissingDependencyError(error.name, extra=extra, purpose=purpose) from error

    return get
