"""Settings whose fields say what they mean, and command lines made of them: each option is described once."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from sfpp.runtime.errors import check_known


def option(meaning: str, *, default: Any = dataclasses.MISSING, **parsing: Any) -> Any:
    """Return a field of a settings class, to be used in Python and on a command line alike.

    Args:
        meaning: what it sets, in words for ``--help`` and for whoever reads the class.
        default: the field's; without one it must be given.
        parsing: how ``argparse`` takes it, such as ``type``, ``choices`` or ``metavar``; ``flags`` replaces the flag
            that is made of the name.
    """
    return dataclasses.field(default=default, metadata={"help": meaning, **parsing})


def add_options(group: Any, settings: type[Any], *names: str) -> None:
    """Add the fields of these names to a parser or a group of one, as options with the fields' defaults.

    What is true by default becomes ``--no-NAME``, and what is false ``--NAME``.
    """
    fields = {field.name: field for field in dataclasses.fields(settings)}
    for name in names:
        parsing = dict(fields[name].metadata)
        meaning, flag = parsing.pop("help"), name.replace("_", "-")
        flags, default = parsing.pop("flags", (f"--{flag}",)), fields[name].default
        if isinstance(default, bool):
            no, about = ("no-", f"do not {meaning}") if default else ("", meaning)
            group.add_argument(f"--{no}{flag}", dest=name, action=f"store_{not default}".lower(), help=about)
            continue
        if default is dataclasses.MISSING:
            parsing |= {"required": True} if flags[0].startswith("-") else {}
        else:
            parsing["default"] = default
            meaning += "" if default in (None, ()) or "(default" in meaning else " (default: %(default)s)"
        if flags[0].startswith("-"):
            parsing["dest"] = name
        group.add_argument(*flags, help=meaning, **parsing)


def options_of(arguments: argparse.Namespace, settings: type[Any]) -> dict[str, Any]:
    """Return those of the parsed arguments that are fields of the settings."""
    names = {field.name for field in dataclasses.fields(settings)}
    return {name: value for name, value in vars(arguments).items() if name in names}


def check_choices(settings: Any) -> None:
    """Refuse a value that is none of its option's choices; None passes where it is the default.

    Raises:
        UsageError: there is one.
    """
    for field in dataclasses.fields(settings):
        value, known = getattr(settings, field.name), field.metadata.get("choices")
        if known is not None and (value is not None or field.default is not None):
            check_known(field.name, value, known)
