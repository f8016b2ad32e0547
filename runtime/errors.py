"""The error tree of sfpp: every expected failure is an :class:`SfppError`.

A command prints the message alone and exits with ``exit_code``; anything that is not an ``SfppError`` is a bug and
shows its traceback. A message says what was given, what was expected, and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from sfpp.runtime.text import without_secrets


class SfppError(Exception):
    """Base of every failure that sfpp foresees; its message never holds a password of an address that was given."""

    exit_code = 1

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(without_secrets(each) if isinstance(each, str) else each for each in arguments))


class UsageError(SfppError, ValueError):
    """An argument has a value that cannot be meant: a size of 0x0, a variant that does not exist."""

    exit_code = 2


class RecipeError(UsageError):
    """A merging recipe is malformed or does not fit the network's grid."""


class CheckpointError(SfppError):
    """A checkpoint cannot be read, or is not a network that sfpp knows."""


class ModelFileError(SfppError):
    """A model file cannot be opened or is not what it claims to be."""


class ContractError(ModelFileError):
    """A model file's contract is missing, malformed, or newer than this sfpp."""


class BackendError(SfppError):
    """An inference library is missing, refuses the graph, or failed while running it."""


class SelfTestError(BackendError):
    """No backend here answers as the model did when it was exported.

    Attributes:
        answers: of each backend, how it answers.
        agreement: the best share, 0..1, of what is as expected; None where none answered at all.
    """

    def __init__(self, model: str, *, answers: Iterable[str], agreement: float | None) -> None:
        self.answers = tuple(answers)
        self.agreement = agreement
        super().__init__(
            f"no backend here answers as {model} did when it was exported: {'; '.join(self.answers)}. Compare it with "
            "its weights with sfpp-parity, and export it again; --backend NAME runs it in one of them all the same, "
            "and --no-self-test asks none (in Python: backend=, self_test=False)"
        )


class MissingDependencyError(SfppError, ImportError):
    """A library that a feature needs is not installed; ``advice`` says how to get it where no extra brings it."""

    def __init__(self, package: str, *, extra: str, purpose: str, advice: str = "") -> None:
        how = advice or f"pip install 'sfpp[{extra}]'"
        super().__init__(f"{purpose} needs {package}, which is not installed: {how}")
        self.package = package
        self.extra = extra


class MediaError(SfppError):
    """An image, a video or a camera cannot be read or written."""


class MemoryShortageError(SfppError):
    """There is less memory than the work takes; the message says how much of both, and what to do."""


class VerificationError(SfppError):
    """A produced file does not agree with what it was made from, so it was not kept."""


def check_known(what: str, given: object, known: Iterable[str], *, more: str = "") -> None:
    """Refuse a word that is none of the known ones; ``more`` ends the message.

    Raises:
        UsageError: it is none; the message suggests the closest one.
    """
    words = tuple(known)
    if given not in words:
        raise UsageError(
            f"{what} is {given!r}, expected one of {', '.join(words)}{more}{did_you_mean(str(given), words)}"
        )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``", did you mean 'fast'?"`` for the known word closest to a wrong one, or nothing."""
    close = difflib.get_close_matches(word.lower(), sorted(known), n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""
