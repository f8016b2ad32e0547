"""What an engine is to be built for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sfpp.runtime.errors import UsageError
from sfpp.runtime.tensorrt.library import LibraryName

CURRENT = "current"
_CAPABILITY = re.compile(r"sm(\d{2,3})")
_UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)


@dataclass(frozen=True)
class EngineSettings:
    """What an engine is to be built for.

    Args:
        devices: compute capabilities such as ``sm86``, or ``current`` for this machine's card. None leaves it to the
            library: TensorRT builds for this card, TensorRT-RTX for all cards from compute capability 8.0 on.
        workspace_bytes: memory that layers may use while they run; None is what the library takes, that is all.
        timing_cache: file with the measured times of kernels, read and written; makes a second build much faster.
        dla: number of the deep learning accelerator that takes what it can; the GPU does the rest.
        version_compatible: let later versions of TensorRT run the engine, which may be slower.
        hardware_compatible: let cards of the Ampere generation and later run it, which may be slower.

    Raises:
        UsageError: a device that is no compute capability, a workspace of nothing, or a negative accelerator.
    """

    devices: tuple[str, ...] | None = None
    workspace_bytes: int | None = None
    timing_cache: Path | None = None
    dla: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False

    def __post_init__(self) -> None:
        for device in self.devices or ():
            if device != CURRENT and not _CAPABILITY.fullmatch(device):
                raise UsageError(
                    f"there is no device {device!r}; expected a compute capability such as sm86 (RTX 30), sm89 "
                    "(RTX 40), sm120 (RTX 50) or sm87 (Jetson Orin), or current for this machine's card"
                )
        if self.devices is not None and (not self.devices or len(set(self.devices)) < len(self.devices)):
            raise UsageError(f"the devices are {', '.join(self.devices) or 'none'}; name each once, and at least one")
        if self.devices and CURRENT in self.devices and len(self.devices) > 1:
            raise UsageError("current stands for this machine's card alone; name the others by compute capability")
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            raise UsageError(f"a workspace of {self.workspace_bytes} bytes holds nothing; give for example 2GiB")
        if self.dla is not None and self.dla < 0:
            raise UsageError(f"there is no accelerator {self.dla}; they are numbered from 0")

    def check_for(self, library: LibraryName) -> None:
        """Refuse what a library cannot do.

        Raises:
            UsageError: another card than this one with TensorRT; or with TensorRT-RTX a timing cache, an accelerator,
                or compatibility, which it has or lacks by nature.
        """
        if library == "tensorrt":
            if self.devices not in (None, (CURRENT,)):
                raise UsageError(
                    f"TensorRT builds for the card of the machine it runs on, not for {', '.join(self.devices or ())}; "
                    "build there, or take --backend tensorrt-rtx for RTX cards"
                )
            return
        refused = {
            "timing cache": self.timing_cache is not None,
            "deep learning accelerator": self.dla is not None,
            "version-compatible engines": self.version_compatible,
            "mode for compatible hardware": self.hardware_compatible,
        }
        if wanted := [name for name, is_wanted in refused.items() if is_wanted]:
            raise UsageError(
                f"TensorRT-RTX has no {', no '.join(wanted)}: its engines belong to one version, run on all cards "
                "they are built for, and choose kernels there; leave that off"
            )


def devices_from(text: str | None) -> tuple[str, ...] | None:
    """Read ``sm86,sm89`` as compute capabilities; None stays None."""
    return None if text is None else tuple(part.strip().lower() for part in text.split(","))


def bytes_from(text: str) -> int:
    """Read an amount of memory such as ``2GiB``, ``512MiB`` or ``1.5 GB``.

    Raises:
        UsageError: something else.
    """
    match = _AMOUNT.fullmatch(text.strip())
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise UsageError(f"{text!r} is no amount of memory; expected for example 2GiB, 512MiB or 1.5GB")
    return int(float(match[1]) * unit)
