"""Looking at a machine: files that the kernel and Jetson Linux write, commands that may be missing, and libraries.

Nothing here fails, needs root or changes anything; what cannot be found out is None or empty.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfpp.runtime.cache import user_cache
from sfpp.runtime.files import python_module

_PATIENCE_S = 20.0  # a Jetson's first import of a large library; GStreamer looks at all its plugins once
_IMPORTED = "sfpp.runtime.doctor.imported"
# What is imported, and what pip calls it.
MODULES = {
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt_rtx": ("tensorrt-rtx", "tensorrt-rtx-cu13"),
    "tensorrt_lean": ("tensorrt-lean", "tensorrt-lean-cu13", "tensorrt-lean-cu12"),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "cv2": (),
    "av": ("av",),
    "numpy": ("numpy",),
}
PLUGINS = ("nvarguscamerasrc", "nvsiplcamerasrc", "nvv4l2decoder", "nvvidconv")
_RELEASE = re.compile(r"R(\d+)[^,]*,\s*REVISION:\s*([\d.]+)")
_MODE = re.compile(r"<\s*POWER_MODEL\s+(?=[^>]*ID=(\d+))(?=[^>]*NAME=([\w-]+))")
_HOME = re.compile(r"/(?:home|Users)/[^/\s'\"]+")


@dataclass(frozen=True)
class Library:
    """An installed library; ``error`` says why it cannot be imported."""

    version: str = ""
    error: str = ""
    gstreamer: bool | None = None
    providers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Card:
    """A GPU as its driver tells it."""

    name: str
    driver: str
    capability: str
    memory: str


@dataclass(frozen=True)
class Power:
    """A Jetson's power mode, and those that it has, by number."""

    mode: str
    modes: dict[str, str]


@dataclass(frozen=True)
class Machine:
    """What was found.

    Attributes:
        board: what the firmware calls it; empty on a PC.
        system: Linux distribution and architecture.
        python: its version.
        linux: version of Jetson Linux.
        jetpack: version of the package ``nvidia-jetpack``, if that is installed.
        cards: NVIDIA's GPUs, where ``nvidia-smi`` tells.
        cuda: the highest version that the driver takes.
        power: None where there is no ``nvpmodel``.
        gpu_mhz: the GPU's lowest and highest allowed clock; equal where ``jetson_clocks`` has fixed it.
        memory_bytes, available_bytes, swap_bytes: of the processor, and on a Jetson of the GPU.
        disk_bytes: free where engines are kept; None where there is no such folder and none can be made.
        cache: that folder, without a user's name.
        libraries: by module; those that are not installed are left out.
        packages: of pip, that have no module of their own name: ``cuda-python``, and what may be there twice.
        trtexec: whether NVIDIA's tool is there.
        plugins: of GStreamer, whether each is there; empty without ``gst-inspect-1.0``.
        cameras: names of video devices by number.
    """

    board: str = ""
    system: str = ""
    python: str = ""
    linux: str = ""
    jetpack: str = ""
    cards: tuple[Card, ...] = ()
    cuda: str = ""
    power: Power | None = None
    gpu_mhz: tuple[int, int] | None = None
    memory_bytes: int = 0
    available_bytes: int = 0
    swap_bytes: int = 0
    disk_bytes: int | None = None
    cache: str = ""
    libraries: dict[str, Library] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    trtexec: bool = False
    plugins: dict[str, bool] = field(default_factory=dict)
    cameras: dict[str, str] = field(default_factory=dict)


class Place:
    """Where is looked: the files below a folder, commands, and this Python; tests put fakes in its place."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def text(self, path: str) -> str:
        """Return a file's text; empty where it cannot be read."""
        with contextlib.suppress(OSError):
            return (self._root / path).read_bytes().replace(b"\0", b"").decode(errors="replace").strip()
        return ""

    def paths(self, pattern: str) -> list[Path]:
        """Return the paths that match, in order."""
        with contextlib.suppress(OSError):
            return sorted(self._root.glob(pattern))
        return []

    def output(self, *command: str) -> str | None:
        """Return what a command prints; None where it is missing, fails or takes too long."""
        if shutil.which(command[0]) is None:
            return None
        return _printed(args=list(command))

    def imported(self, module: str) -> dict[str, Any] | None:
        """Return what a library says of itself, imported in a process of its own; None where it is not installed."""
        with contextlib.suppress(ValueError, ImportError):
            if importlib.util.find_spec(module) is None:
                return None
        text = _printed(**python_module(_IMPORTED, module))
        if text is None:
            return {"error": "the process that imported it ended at once, or took too long"}
        # A library may print when it ends, too.
        found: dict[str, Any] = next(json.loads(line) for line in reversed(text.splitlines()) if line[:2] == '{"')
        return found

    def package(self, name: str) -> str:
        """Return the version of a package of pip; empty where it is not installed."""
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
        return ""

    def python(self) -> str:
        """Return Python's version."""
        return platform.python_version()

    def architecture(self) -> str:
        """Return the processor's."""
        return platform.machine()

    def free(self) -> tuple[str, int | None]:
        """Return where engines are kept, and the bytes that are free there."""
        try:
            folder = user_cache()
        except RuntimeError:  # there is no home folder
            return "", None
        there = next((each for each in (folder, *folder.parents) if each.exists()), folder)
        usable = os.access(there, os.W_OK)
        shown = str(folder)
        for name in ("SFPP_CACHE", "XDG_CACHE_HOME"):  # who chose a folder may have any name in it
            chosen = os.environ.get(name)
            if chosen and folder.is_relative_to(chosen):
                shown = str(Path(f"${name}") / folder.relative_to(chosen))
                break
        return without_names(shown), shutil.disk_usage(there).free if usable else None


def _printed(**options: Any) -> str | None:
    """Run a process and return what it prints; None where it fails or takes too long."""
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    try:
        done = subprocess.run(**options, **quiet, timeout=_PATIENCE_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return bytes(done.stdout).decode(errors="replace").strip() or None


def look(place: Place | None = None) -> Machine:
    """Look at this machine, or at what stands in its place."""
    place = place or Place()
    memory = dict(re.findall(r"^(\w+):\s+(\d+) kB", place.text("proc/meminfo"), re.MULTILINE))
    kib = {name: int(memory.get(name, 0)) * 1024 for name in ("MemTotal", "MemAvailable", "SwapTotal")}
    cache, disk = place.free()
    smi = place.output("nvidia-smi") or ""
    release = _RELEASE.search(place.text("etc/nv_tegra_release"))
    return Machine(
        board=place.text("proc/device-tree/model"),
        system=_system(place),
        python=place.python(),
        linux=f"{release[1]}.{release[2]}".removesuffix(".0") if release else "",
        jetpack=re.split(r"[-+]", place.output("dpkg-query", "-W", "-f", "${Version}", "nvidia-jetpack") or "")[0],
        cards=tuple(_cards(place)) if smi else (),  # where it hangs, it does so once
        cuda="".join(re.findall(r"CUDA Version:\s*([\d.]+)", smi)[:1]),
        power=_power(place),
        gpu_mhz=_gpu_mhz(place),
        memory_bytes=kib["MemTotal"],
        available_bytes=kib["MemAvailable"],
        swap_bytes=kib["SwapTotal"],
        disk_bytes=disk,
        cache=cache,
        libraries=_libraries(place),
        packages={name: version for name in _PACKAGES if (version := place.package(name))},
        trtexec=bool(place.paths("usr/src/tensorrt/bin/trtexec") or place.paths("usr/bin/trtexec")),
        plugins=_plugins(place),
        cameras={
            path.name: place.text(f"sys/class/video4linux/{path.name}/name") for path in place.paths("dev/video*")
        },
    )


_PACKAGES = ("cuda-python", "cuda-bindings", *sorted({name for names in MODULES.values() for name in names}))


def without_names(text: str) -> str:
    """Return a text in which home folders, which hold a user's name, are ``~``."""
    with contextlib.suppress(RuntimeError):
        home = str(Path.home())
        text = text.replace(home, "~") if len(home) > 1 else text
    return _HOME.sub("~", text)


def _system(place: Place) -> str:
    names = re.findall(r'^PRETTY_NAME="?([^"\n]+)', place.text("etc/os-release"), re.MULTILINE)
    return " ".join([*names[:1], place.architecture()])


def _cards(place: Place) -> Iterator[Card]:
    fields = "--query-gpu=name,driver_version,compute_cap,memory.total"
    for line in (place.output("nvidia-smi", fields, "--format=csv,noheader") or "").splitlines():
        parts = [each.strip() for each in line.split(",")]
        if len(parts) == 4:
            name, driver, capability, memory = ("" if "N/A" in each or "Not Supp" in each else each for each in parts)
            yield Card(name, driver, capability, memory)


def _power(place: Place) -> Power | None:
    modes = dict(_MODE.findall(place.text("etc/nvpmodel.conf")))
    answer = re.search(r"NV Power Mode:\s*(\S+)", place.output("nvpmodel", "-q") or "")
    return Power(answer[1] if answer else "", modes) if answer or modes else None


def _gpu_mhz(place: Place) -> tuple[int, int] | None:
    for path in place.paths("sys/class/devfreq/*"):
        if re.search(r"gpu|ga10b|gv11b|gb10b", path.name):
            limits = [place.text(f"sys/class/devfreq/{path.name}/{name}_freq") for name in ("min", "max")]
            if all(each.isdecimal() for each in limits):
                return int(limits[0]) // 10**6, int(limits[1]) // 10**6
    return None


def _libraries(place: Place) -> dict[str, Library]:
    with ThreadPoolExecutor(max_workers=4) as pool:
        found = zip(MODULES, pool.map(place.imported, MODULES), strict=True)
        return {name: _library(said) for name, said in found if said is not None}


def _library(said: dict[str, Any]) -> Library:
    error = without_names(said.get("error", ""))
    return Library(said.get("version", ""), error, said.get("gstreamer"), tuple(said.get("providers", ())))


def _plugins(place: Place) -> dict[str, bool]:
    if place.output("gst-inspect-1.0", "--version") is None:
        return {}
    return {name: place.output("gst-inspect-1.0", name) is not None for name in PLUGINS}


def numbers(version: str, count: int = 2) -> list[int]:
    """Return the first numbers of a version."""
    return [int(each) for each in re.findall(r"\d+", version)[:count]]
