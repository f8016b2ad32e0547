"""An engine's first use with a library, a driver and a card: does it answer as the file did that it was built from?"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from sfpp.runtime.compiled import compiled_models_folder
from sfpp.runtime.self_test import Model, self_test

_LOGGER = logging.getLogger("sfpp")


def tested_on_first_use(model: Model, path: Path, *, notify: Callable[[str], object] | None) -> None:
    """Replay the self-test of an engine that has not passed it here yet, and tell how it came out.

    A failure is a warning, not an error: whoever loads the model may know better. It is told each time.

    Args:
        model: opened from an engine.
        path: the file that was opened: the engine, or the .onnx file that it was built from.
        notify: told the result, besides the logger ``sfpp``.

    Raises:
        ContractError: the self-test is damaged.
        BackendError: the engine fails.
    """
    if model.contract.engine is None or model.contract.self_test is None:
        return
    # The description names library, version, card and driver: what an update changes.
    options = {"runs in": model.description, "engine": model.contract.engine.version}
    folder = compiled_models_folder(path, library="self-tests", options=options)
    passed = None if folder is None else folder / "passed"
    if passed is not None and passed.is_file():
        return
    result = self_test(model)
    line = f"{path.name}, first use here: {result.text()}"
    _LOGGER.log(logging.INFO if result.passed else logging.WARNING, line)
    if notify is not None:
        notify(line)
    if result.passed and passed is not None:
        passed.touch()
