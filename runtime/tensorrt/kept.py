"""Engines that are built when a model is first run, and kept for the next time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from sfpp.runtime.cache import compiled_models_folder
from sfpp.runtime.errors import BackendError
from sfpp.runtime.tensorrt.cuda import Card, Cuda
from sfpp.runtime.tensorrt.engines import build_engine
from sfpp.runtime.tensorrt.library import Library, library_of
from sfpp.runtime.tensorrt.settings import CURRENT, EngineSettings
from sfpp.runtime.tensorrt.sidecar import SUFFIX, this_platform

_INTERVAL_S = 10.0


def kept_engine(model: Path, *, backend: str, build: bool, notify: Callable[[str], object]) -> Path:
    """Return the engine of an ONNX file for this card; it is built on first use, which takes minutes.

    It belongs to the file's content, the library's version and the card, so that a stale one is never used.

    Args:
        model: the .onnx file.
        backend: ``tensorrt`` or ``tensorrt-rtx``.
        build: whether one may be built; otherwise it must be there.
        notify: told that and how it is built.

    Raises:
        BackendError: there is no card, there is no engine yet and none may be built, or the build fails.
        ModelFileError, ContractError, MissingDependencyError: as for :func:`.engines.build_engine`.
    """
    library = library_of(backend, purpose=f"running {model.name}")
    card = Cuda().card()
    engine = _place(model, library, card)
    if engine is not None and engine.is_file():
        return engine
    if not build:
        raise BackendError(
            f"there is no engine of {model.name} for {library.title} {library.version} on {card.name} yet, and none "
            f"may be built now; build it with sfpp-engine, or leave --no-build off"
        )
    if engine is None:
        raise BackendError(
            f"there is no place to keep an engine of {model.name} in: set SFPP_CACHE to a folder that can be written "
            "to, or build it with sfpp-engine"
        )
    notify(f"building an engine of {model.name} for {card.name}: takes minutes, and is kept for the next time")
    devices = (CURRENT,) if library.is_rtx else None
    report = build_engine(
        model, engine, backend=backend, settings=EngineSettings(devices=devices), progress=_told_now_and_then(notify)
    )
    notify(f"built in {report.seconds:.0f} s, {report.size_bytes / 1e6:.1f} MB")
    return engine


def has_kept_engine(model: Path, *, backend: str) -> bool:
    """Return whether :func:`kept_engine` need not build."""
    library = library_of(backend, purpose=f"running {model.name}")
    engine = _place(model, library, Cuda().card())
    return engine is not None and engine.is_file()


def _place(model: Path, library: Library, card: Card) -> Path | None:
    """Return where the engine lies or is to lie, None where nothing can be kept."""
    options = {"version": library.version, "card": card.name, "device": card.capability, "platform": this_platform()}
    folder = compiled_models_folder(model, library=f"{library.name}-engines", options=options)
    return None if folder is None else folder / (model.stem + SUFFIX)


def _told_now_and_then(notify: Callable[[str], object]) -> Callable[[str, int, int], None]:
    start = last = time.monotonic()

    def progress(phase: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _INTERVAL_S:
            last = now
            notify(f"building for {now - start:.0f} s: {phase}, {done} of {total}")

    return progress
