"""The contract beside an engine, and whether an engine can run here at all."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from sfpp.runtime.contract import EngineRecord
from sfpp.runtime.errors import BackendError
from sfpp.runtime.tensorrt.cuda import Card
from sfpp.runtime.tensorrt.library import Library, version_numbers

SUFFIX = ".engine"
SUFFIXES = (SUFFIX, ".plan", ".trt")  # what the runtime opens as an engine
# Version-compatible engines run in later versions of the same major, and of these (the support matrix of TensorRT 11).
_LATER_MAJORS = {8: 10, 10: 11}
_AMPERE = 80


def sidecar_of(engine: Path) -> Path:
    """Return where the contract of an engine lies."""
    return engine.with_suffix(".json")


def files_of_model(model: Path) -> tuple[Path, ...]:
    """Return the files that a model consists of: itself, and of an engine its contract."""
    return (model, sidecar_of(model)) if model.suffix in SUFFIXES else (model,)


def this_platform() -> str:
    """Return operating system and processor, such as ``linux-aarch64``."""
    return f"{sys.platform}-{platform.machine().lower()}"


def check_engine(record: EngineRecord, engine: Path, library: Library, card: Card) -> None:
    """Refuse an engine that was built for something else.

    Raises:
        BackendError: another library, version, platform or card; the message says how to build it for here.
    """
    rebuild = f"build it again on this machine: sfpp-engine MODEL.onnx -o {engine.name}"
    if record.library != library.name:
        raise BackendError(
            f"{engine.name} was built with {record.library}, and {library.name} was to run it; take "
            f"--backend {record.library}, or {rebuild} --backend {library.name}"
        )
    if library.is_lean and not record.version_compatible:
        raise BackendError(
            f"{engine.name} is for TensorRT {record.version} as a whole, and {library.title} runs version-compatible "
            "engines alone; install TensorRT, or build it with sfpp-engine --version-compatible"
        )
    if not _version_fits(record, library):
        raise BackendError(
            f"{engine.name} was built with {library.title} {record.version}, and this machine has {library.version}; "
            f"{rebuild}"
        )
    if not library.is_rtx and record.platform != this_platform():
        raise BackendError(f"{engine.name} was built on {record.platform}, and this is {this_platform()}; {rebuild}")
    if not _card_fits(record, library, card):
        built_for = ", ".join(record.devices) or "cards from sm80 on"
        on_card = f" ({record.card})" if record.card else ""
        raise BackendError(
            f"{engine.name} was built for {built_for}{on_card}, and this card is {card.capability} ({card.name}); "
            f"{rebuild}" + (f" --device {card.capability}" if library.is_rtx else "")
        )


def warning_of(record: EngineRecord, engine: Path, card: Card) -> str:
    """Return what to say of an engine whose kernels were chosen on a larger or smaller card; empty of any other."""
    count = record.multiprocessors
    if count in (None, 0, card.multiprocessors) or record.hardware_compatible or record.same_capability:
        return ""
    return (
        f"{engine.name} was built where {count} multiprocessors are on, and here are {card.multiprocessors}: another "
        "module, or another power mode; it may be slow or fail, so build it again here in the mode that it runs in"
    )


def _version_fits(record: EngineRecord, library: Library) -> bool:
    built, here = version_numbers(record.version), version_numbers(library.version)
    if built == here:
        return True
    if not record.version_compatible or library.is_rtx or not built or not here:
        return False
    return here > built and here[0] in (built[0], _LATER_MAJORS.get(built[0]))


def _card_fits(record: EngineRecord, library: Library, card: Card) -> bool:
    generation = int(card.capability.removeprefix("sm"))
    if library.is_rtx:
        return card.capability in record.devices if record.devices else generation >= _AMPERE
    if record.hardware_compatible:
        return generation >= _AMPERE
    # Where nobody could ask for the card when the engine was built, TensorRT itself finds out.
    return not record.devices or card.capability in record.devices
