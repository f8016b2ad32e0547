"""A model's first use here: does it answer as it did when it was exported, and which backend does if not the first?

Libraries have faults that show on some processors only, and an update of a library or a driver brings new ones. So a
model's self-test is replayed the first time that it runs with a backend, a version, a precision, a kind of CPU and a
card. A pass is remembered in the user's cache folder, and from then on costs a look at a file; a failure is found again
each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from sfpp.runtime.backends import Choice, Notify
from sfpp.runtime.compiled import user_cache
from sfpp.runtime.errors import ContractError, MissingDependencyError, SelfTestError, SfppError
from sfpp.runtime.machine import cpu_kind, gpu_kind
from sfpp.runtime.opened_model import SelfTestState
from sfpp.runtime.self_test import Model, self_test

_LOGGER = logging.getLogger("sfpp")
_KEPT = 1024  # passes, each an empty file
_WARNING = "warning: "
_T = TypeVar("_T")


def first_that_answers(
    path: Path,
    choices: Sequence[Choice],
    open_with: Callable[[Choice], tuple[_T, str]],
    *,
    model_of: Callable[[_T], Model | None],
    replay: bool,
    notify: Notify | None,
) -> tuple[_T, Choice]:
    """Open a file with the first of the backends that answers as the model did when it was exported, and say which.

    One that was asked for is taken whatever it answers, with a warning each time: whoever asks may know better.

    Args:
        path: the file.
        choices: the backends, the preferred one first.
        open_with: opens the file with one of them; returns what it has opened, and in which library it runs and why.
        model_of: the model in that, None where nothing is known of the file.
        replay: whether self-tests are replayed at all.
        notify: called with the same lines as the logger ``sfpp``, for a command to print.

    Returns:
        What was opened, its model knowing its ``self_test``, and the choice.

    Raises:
        SelfTestError: none of the backends answers as the model did.
        SfppError: the first one cannot be opened.
    """
    left = deque(choices)
    wrong: list[str] = []
    agreements: list[float] = []
    while left:
        choice = left.popleft()
        try:
            opened, reason = open_with(choice)
        except SfppError as error:
            if not wrong:
                raise
            wrong.append(f"{choice.name} cannot take over ({error})")
            continue
        model = model_of(opened)
        line = _replayed(model, path) if model is not None and replay else ""
        if model is None or choice.asked or model.self_test.outcome != "failed":
            said = _instead(model, path, wrong) if model is not None and wrong else f"{path.name} runs in {reason}"
            _say(said, notify)
            _say(line, notify)
            return opened, choice
        model.close()
        state = model.self_test
        wrong.append(f"{model.library} answers wrongly here ({state.detail})")
        agreements += [] if state.agreement is None else [state.agreement]
        if model.precision == "bf16" and choice.options.precision is None:
            # Nobody asked for it, and the same library in float32 is the least change.
            left.appendleft(replace(choice, options=replace(choice.options, precision="fp32")))
    raise SelfTestError(path.name, answers=wrong, agreement=max(agreements, default=None))


def _instead(model: Model, path: Path, wrong: Sequence[str]) -> str:
    return f"{_WARNING}{path.name} runs in {model.library}: chosen because {' and '.join(wrong)}"


def _replayed(model: Model, path: Path) -> str:
    """Let the model know its ``self_test``, and return what a person should read of it, or nothing."""
    try:
        model.self_test, line = _tested(model, path)
    except BaseException:
        model.close()
        raise
    return line


def _tested(model: Model, path: Path) -> tuple[SelfTestState, str]:
    """Replay the self-test of a model that has not passed it here yet; return how it stands, and a line about it."""
    if model.contract.self_test is None:
        detail = "carries no self-test, so nobody knows whether it answers here as it did when it was exported"
        _LOGGER.info(f"{path.name} {detail}")
        return SelfTestState("not carried", detail=detail), ""
    place = _place(model, path)
    if place is not None and place.is_file():
        return SelfTestState("passed"), ""
    try:
        result = self_test(model)
    except ContractError as error:
        return SelfTestState("damaged", detail=str(error)), f"{_WARNING}{path.name}: {error}"
    except MissingDependencyError as error:  # OpenCV, without which no frame can be given to it either
        return SelfTestState("off", detail=str(error)), ""
    except SfppError as error:
        return SelfTestState("failed", detail=str(error)), f"{_WARNING}{path.name}: self-test failed: {error}"
    if not result.passed:
        return result.state, f"{_WARNING}{path.name}: {result.text()}"
    return result.state, f"{path.name}, first use here: {result.text()}" if _remember(place) else ""


def _place(model: Model, path: Path) -> Path | None:
    """Return the file that says that the model has passed here; None where none can be.

    Its name stands for the file, for what is made of it, and for what an update or another machine changes: the
    description has library, version and, of an engine, card and driver.
    """
    try:
        # The content's hash would take a second for a large model. No program can set the time of the last change.
        file = path.stat()
        stamp = (str(path.resolve()), file.st_size, file.st_mtime_ns, file.st_ctime_ns)
        runs = (model.description, model.precision, cpu_kind(), gpu_kind())
        # In the contract's text the self-test stands for itself by its hash.
        name = hashlib.sha256(repr((stamp, runs, model.contract)).encode("utf-8", "replace")).hexdigest()
        return user_cache() / "self-tests" / name[:32]
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return None


def _remember(place: Path | None) -> bool:
    """Keep a pass, and of all passes those that are youngest; return whether that was possible."""
    if place is None:
        return False
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    except OSError:
        return False
    with contextlib.suppress(OSError):  # another process may do the same
        passes = sorted(place.parent.iterdir(), key=lambda each: each.stat().st_mtime_ns)
        for each in passes[:-_KEPT]:
            each.unlink(missing_ok=True)
    return True


def _say(line: str, notify: Notify | None) -> None:
    if not line:
        return
    _LOGGER.log(logging.WARNING if line.startswith(_WARNING) else logging.INFO, line)
    if notify is not None:
        notify(line)
