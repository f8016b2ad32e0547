"""Opening a model file: its contract and a backend, together a :class:`Segmenter`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from sfpp.runtime.backends import Backend, open_backend
from sfpp.runtime.contract import METADATA_KEY, ModelContract, contract_from_json
from sfpp.runtime.errors import ContractError, UsageError
from sfpp.runtime.segmentation import Segmenter

_LOGGER = logging.getLogger("sfpp")


def load(
    path: str | os.PathLike[str],
    *,
    contract: ModelContract | None = None,
    threads: int | None = None,
    notify: Callable[[str], object] | None = None,
) -> Segmenter:
    """Open a model file that sfpp-export wrote, or any ONNX file together with a contract.

    Which backend was chosen, and why, goes to the logger ``sfpp`` at level INFO.

    Args:
        path: the .onnx file.
        contract: what the model takes and gives; None reads it from the file. A given one wins over the file's.
        threads: threads within an operator; None leaves the choice to the backend.
        notify: called with the same line as the logger, for a command to print.

    Raises:
        ModelFileError: the file does not exist or no backend can open it.
        ContractError: the file carries no contract and none is given, or its contract is malformed or too new.
        MissingDependencyError: the backend's library is not installed.
        UsageError: fewer than one thread.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads is {threads}, expected at least 1, or None for the backend's own choice")
    file = Path(path)
    backend, reason = open_backend(file, threads=threads)
    try:
        segmenter = Segmenter(backend, contract if contract is not None else _contract_in(backend, file))
    except BaseException:
        backend.close()
        raise
    line = f"{file.name} runs in {reason}"
    _LOGGER.info(line)
    if notify is not None:
        notify(line)
    return segmenter


def read_contract_file(path: str | os.PathLike[str]) -> ModelContract:
    """Read a contract from a JSON file, for a model file that carries none.

    Raises:
        ContractError: the file cannot be read, or is not a contract that this version knows.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ContractError(f"cannot read the contract {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ContractError(f"{path} is not a contract: it must be JSON in UTF-8 ({error.reason})") from error
    return contract_from_json(text, origin=os.fspath(path))


def _contract_in(backend: Backend, file: Path) -> ModelContract:
    text = backend.metadata.get(METADATA_KEY)
    if text is None:
        raise ContractError(
            f"{file.name} carries no contract (metadata {METADATA_KEY!r}), so its input and classes are unknown; "
            "export it with sfpp-export, or give the facts: load(path, contract=read_contract_file('facts.json'))"
        )
    return contract_from_json(text, origin=f"the contract in {file.name}")
