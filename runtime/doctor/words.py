"""What was found as text for people, on one screen, and as JSON for a report of a bug."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

from sfpp.runtime.doctor.advice import Advice, advice_for, board_of, is_jetson, jetpack_of, next_command
from sfpp.runtime.doctor.looking import PLUGINS, Library, Machine
from sfpp.runtime.text import aligned, clean_text

_GIB = 1 << 30
_WIDTH = 110
_TITLES = {
    "tensorrt": "TensorRT",
    "tensorrt_rtx": "TensorRT-RTX",
    "tensorrt_lean": "lean runtime",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "cv2": "OpenCV",
    "av": "PyAV",
    "numpy": "NumPy",
}
_THOR = "Thor"  # where nvidia-smi is real; on Orin it tells nothing
_OF_THOR = "nvsiplcamerasrc"


def report_text(machine: Machine) -> str:
    """Return everything for a terminal."""
    advice = advice_for(machine)
    rows = [*_machine_rows(machine), ("", ""), *_library_rows(machine), ("", ""), *_camera_rows(machine)]
    lines = [line.rstrip() for line in aligned(rows, text_columns=2)]
    lines += ["", *_advice_lines(machine, advice)]
    return "\n".join(clean_text(line) for line in lines)


def report_json(machine: Machine) -> str:
    """Return everything as JSON; it names no user and no host."""
    advice, jetpack = advice_for(machine), jetpack_of(machine)
    content = {
        "machine": dataclasses.asdict(machine),
        "jetpack": jetpack.name if jetpack else "",
        "advice": [dataclasses.asdict(each) for each in advice],
        "next": next_command(machine, advice),
    }
    return json.dumps(content, indent=1)


def _machine_rows(machine: Machine) -> Iterator[tuple[str, str]]:
    jetpack, board = jetpack_of(machine), board_of(machine)
    if is_jetson(machine):
        known = f", compute capability {board.capability}" if board else ""
        yield "board", f"{machine.board or 'unknown'}{known}"
        names = [f"JetPack {jetpack.name}" if jetpack else f"JetPack {machine.jetpack or 'not known'}"]
        names += [f"Jetson Linux {machine.linux}"] * bool(machine.linux) + ([f"CUDA {jetpack.cuda}"] if jetpack else [])
        yield "system", f"{', '.join(names)}; {machine.system}, Python {machine.python}"
        yield "power", ", ".join([*_power(machine), *_clocks(machine)]) or "nvpmodel is not there"
    else:
        yield "system", f"{machine.system}, Python {machine.python}"
    if not is_jetson(machine) or _THOR in machine.board:
        yield from (("GPU" if number == 0 else "", text) for number, text in enumerate(_gpus(machine)))
    available = f", {machine.available_bytes / _GIB:.1f} free" if machine.available_bytes else ""
    swap = f"{machine.swap_bytes / _GIB:.1f} GB of swap" if machine.swap_bytes else "no swap"
    yield "memory", f"{machine.memory_bytes / _GIB:.1f} GB{available}; {swap}"
    free = "cannot be written" if machine.disk_bytes is None else f"{machine.disk_bytes / 1e9:.0f} GB free"
    yield "engines", f"kept in {machine.cache or 'no folder'}, {free}"


def _power(machine: Machine) -> Iterator[str]:
    if machine.power is not None:
        modes = ", ".join(f"{key}={name}" for key, name in sorted(machine.power.modes.items()))
        yield f"{machine.power.mode or 'mode not told'}" + (f" (of {modes})" if modes else "")


def _clocks(machine: Machine) -> Iterator[str]:
    if machine.gpu_mhz is not None:
        low, high = machine.gpu_mhz
        yield f"GPU fixed at {high} MHz" if low == high else f"GPU {low} to {high} MHz, not fixed"


def _gpus(machine: Machine) -> Iterator[str]:
    for each in machine.cards:
        parts = [each.name, f"compute capability {each.capability}" if each.capability else "", each.memory]
        parts += [f"driver {each.driver} (CUDA up to {machine.cuda or '?'})"]
        yield ", ".join(filter(None, parts))
    if not machine.cards:
        yield "none of NVIDIA (nvidia-smi is not there, or tells nothing)"


def _library_rows(machine: Machine) -> Iterator[tuple[str, str]]:
    for name, title in _TITLES.items():
        library = machine.libraries.get(name)
        if library is not None or name not in ("tensorrt_lean", "openvino", "tensorrt_rtx"):
            yield title, "-" if library is None else _library(name, library, machine)
    yield "cuda-python", machine.packages.get("cuda-python", "-")
    if fits := _fits(machine):
        yield "fits", fits


def _fits(machine: Machine) -> str:
    """Return which versions go with the board's JetPack, or with the driver."""
    jetpack = jetpack_of(machine)
    if jetpack is not None and jetpack.support != "no":
        versions = f"TensorRT {jetpack.tensorrt}, cuda-python {jetpack.cuda_python}.*, Python {jetpack.python}, NumPy 1"
        return f"to JetPack {jetpack.name}: {versions}"
    if machine.cards and not is_jetson(machine):
        major = machine.cuda.partition(".")[0] or "12"
        return f"to this driver: tensorrt-cu{major}, cuda-python {major}.*"
    return ""


def _library(name: str, library: Library, machine: Machine) -> str:
    if library.error:
        return "does not load, see below"
    version = library.version.split("-")[0]
    if name == "cv2":
        return f"{version}, {'with' if library.gstreamer else 'without'} GStreamer"
    if name == "onnxruntime":
        return f"{version}, for {', '.join(library.providers)}"
    if name == "tensorrt" and machine.trtexec:
        return f"{version}, with trtexec"
    return version


def _camera_rows(machine: Machine) -> Iterator[tuple[str, str]]:
    there = [name for name in PLUGINS if machine.plugins.get(name)]
    if not machine.plugins:
        yield "GStreamer", "gst-inspect-1.0 is not there"
    else:
        wanted = [name for name in PLUGINS if name != _OF_THOR or _THOR in machine.board]
        lacks = [name for name in wanted if name not in there and is_jetson(machine)]
        without = f"; without {', '.join(lacks)}" if lacks else ""
        yield "GStreamer", f"{', '.join(there) or 'no plugins of NVIDIA'}{without}"
    names = [f"{key} {name}".strip() for key, name in sorted(machine.cameras.items())]
    yield "cameras", ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") or "none"


def _advice_lines(machine: Machine, advice: list[Advice]) -> Iterator[str]:
    following = next_command(machine, advice)
    if not any(each.level == "mend" for each in advice):
        yield "nothing to mend"
    for each in advice:
        text = f"{each.level}: {each.text}"
        yield text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."
        if each.command and each.command != following:
            yield f"      {each.command}"
    yield ""
    yield f"next: {following}"
