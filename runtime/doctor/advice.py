"""What of a machine does not fit together, and the next command: by the facts of ``runtime/tensorrt``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from sfpp.runtime.doctor.looking import MODULES, Machine, numbers
from sfpp.runtime.tensorrt.facts import Board, JetPack, boards, jetpacks

_GIB = 1 << 30
_LITTLE_MEMORY = 9 * _GIB  # a board that is sold as 8 GB has less
_LITTLE_SPACE = 2 * _GIB  # a few engines, and the swap file is on the same disk
_OLDEST_PYTHON = (3, 10)
_FIRST_ON_JETSON = (11, 4, 1)  # TensorRT 11 that supports JetPack
_DRIVER_OF_CUDA_13 = 580
_ENVIRONMENT = "python3 -m venv --system-site-packages ~/sfpp-venv"


@dataclass(frozen=True)
class Advice:
    """Something to mend, or to know; ``command`` is what to type, empty where there is nothing to type."""

    level: Literal["mend", "note"]
    text: str
    command: str = ""


def is_jetson(machine: Machine) -> bool:
    """Whether it is one of NVIDIA's boards."""
    return bool(machine.linux) or "Jetson" in machine.board


def board_of(machine: Machine) -> Board | None:
    """Return what is known of the board."""
    return next((each for each in boards() if is_jetson(machine) and each.match in machine.board), None)


def jetpack_of(machine: Machine) -> JetPack | None:
    """Return what is known of the JetPack: by its package, else by Jetson Linux."""
    for each in jetpacks():
        own = each.name.removesuffix(".x")
        if machine.jetpack == own or (own != each.name and machine.jetpack.startswith(f"{own}.")):
            return each
    return next((each for each in jetpacks() if machine.linux in each.linux.split()), None)


def advice_for(machine: Machine) -> list[Advice]:
    """Return what to mend, the most urgent first, and then what to know."""
    found = [each for check in _CHECKS for each in check(machine)]
    return sorted(found, key=lambda each: each.level != "mend")


def next_command(machine: Machine, advice: list[Advice]) -> str:
    """Return what to type now."""
    first = next((each for each in advice if each.level == "mend"), None)
    if first is not None:
        return first.command
    if runs_engines(machine):
        small = is_jetson(machine) and machine.memory_bytes < _LITTLE_MEMORY
        return f"sfpp-engine MODEL.fp16.onnx --workspace {'512MiB' if small else '2GiB'} --timing-cache ~/sfpp.timing"
    return "sfpp-run MODEL.onnx demo"


def runs_engines(machine: Machine) -> bool:
    """Whether TensorRT or TensorRT-RTX, cuda-python and a GPU are there."""
    libraries = [machine.libraries.get(name) for name in ("tensorrt", "tensorrt_rtx")]
    gpu = is_jetson(machine) or bool(machine.cards)
    return gpu and "cuda-python" in machine.packages and any(each and not each.error for each in libraries)


def _python(machine: Machine) -> Iterator[Advice]:
    if tuple(numbers(machine.python)) < _OLDEST_PYTHON:
        yield Advice(
            "mend", f"Python {machine.python} is too old; sfpp needs 3.10", "uv venv --python 3.10 ~/sfpp-venv"
        )


def _jetpack(machine: Machine) -> Iterator[Advice]:
    jetpack = jetpack_of(machine)
    if not is_jetson(machine):
        return
    if jetpack is None:
        shown = f"Jetson Linux {machine.linux}" if machine.linux else "this JetPack"
        yield Advice("note", f"{shown} is not among those that sfpp knows; --check says which TensorRT takes a file")
    elif jetpack.support == "no":
        text = (
            f"JetPack {jetpack.name} (TensorRT {jetpack.tensorrt}) cannot read the graphs; install JetPack 6.1 or later"
        )
        yield Advice("mend", text, "sudo apt-cache policy nvidia-jetpack   # on a Xavier: docs/jetson.md, JetPack 5")
    elif jetpack.support != "yes":
        yield Advice(
            "note", f"JetPack {jetpack.name} has TensorRT {jetpack.tensorrt}, which is best effort; 6.2 is better"
        )


def _tensorrt(machine: Machine) -> Iterator[Advice]:
    library = machine.libraries.get("tensorrt")
    if not is_jetson(machine):
        if not machine.cards and "tensorrt_rtx" in machine.libraries:
            text = "no GPU is needed to build for RTX cards"
            yield Advice("note", text, "sfpp-engine MODEL.fp16.onnx --backend tensorrt-rtx")
        if library is None and "tensorrt_rtx" not in machine.libraries and machine.cards:
            yield Advice(
                "mend", "neither TensorRT nor TensorRT-RTX is installed", f"pip install {_pip_tensorrt(machine)}"
            )
        return
    if library is None:
        text = "Python does not find TensorRT: the environment hides the system's packages, or it is not installed"
        yield Advice("mend", text, f"sudo apt-get install -y python3-libnvinfer && {_ENVIRONMENT}")
        return
    found, jetpack = tuple(numbers(library.version, 3)), jetpack_of(machine)
    newer = next(each for each in jetpacks() if numbers(each.tensorrt, 1) == [11])
    if jetpack is not None and found >= (11,) and numbers(jetpack.name, 3) < numbers(newer.name, 3):
        text = f"TensorRT {library.version} needs JetPack {newer.name}; {jetpack.name} stays with {jetpack.tensorrt}"
        yield Advice("mend", text, _without_tensorrt(machine))
    elif (11,) <= found < _FIRST_ON_JETSON:
        text = f"TensorRT {library.version} does not support Jetson; 11.4.1 is the first of 11 that does"
        yield Advice("mend", text, "pip install 'tensorrt-cu13>=11.4.1'")
    elif jetpack is not None and found and _is_another(found, jetpack.tensorrt):
        brings = f"JetPack {jetpack.name} comes with {jetpack.tensorrt}"
        yield Advice(
            "note", f"TensorRT {library.version} is not the board's own ({brings}); engines belong to one version"
        )


def _is_another(found: tuple[int, ...], own: str) -> bool:
    """Whether a TensorRT is not that of the image; what is only to be installed is in no image."""
    is_in_image = all(part.isdecimal() for part in own.split("."))
    return is_in_image and found[0] < _FIRST_ON_JETSON[0] and found[:2] != tuple(numbers(own))


def _without_tensorrt(machine: Machine) -> str:
    """Return how what pip installed goes, so that the system's own is found again."""
    names = [name for name in MODULES["tensorrt"] if name in machine.packages] or ["tensorrt-cu13"]
    return " ".join(["pip uninstall -y", *(f"{name} {name}-bindings {name}-libs" for name in names)])


def _pip_tensorrt(machine: Machine) -> str:
    major = _major(machine.cuda)
    return f"tensorrt-cu{major} 'cuda-python=={major}.*'"


def _errors(machine: Machine) -> Iterator[Advice]:
    for name, library in machine.libraries.items():
        if "_ARRAY_API" in library.error or (name == "cv2" and "numpy.core" in library.error):
            yield Advice(
                "mend", "the system's OpenCV was built for numpy 1, and numpy 2 is here", "pip install 'numpy>=1.26,<2'"
            )
        elif library.error:
            command = f"python -c 'import {name}'   # shows all of the error"
            yield Advice("mend", f"{name} is installed and does not load: {library.error}", command)
    if {"onnxruntime", "onnxruntime-gpu"} <= machine.packages.keys():
        text = "onnxruntime and onnxruntime-gpu fill the same folder; keep one"
        yield Advice("mend", text, "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu")


def _opencv(machine: Machine) -> Iterator[Advice]:
    library = machine.libraries.get("cv2")
    if library is None:
        on_jetson = "sudo apt-get install -y nvidia-opencv   # or python3-opencv; not both"
        command = on_jetson if is_jetson(machine) else "pip install 'opencv-python-headless>=4.5.4.60,<5'"
        yield Advice("mend", "OpenCV is missing, which reads and resizes frames", command)
    elif library.gstreamer is False and is_jetson(machine):
        text = "OpenCV has no GStreamer, so no csi:// and gst://: one of pip is in front of the system's"
        yield Advice("note", text, "pip uninstall -y opencv-python opencv-python-headless")


def _cuda(machine: Machine) -> Iterator[Advice]:
    engines = {"tensorrt", "tensorrt_rtx"} & machine.libraries.keys()
    jetpack, installed = jetpack_of(machine), machine.packages.get("cuda-python", "")
    wanted = jetpack.cuda_python if jetpack else machine.cuda
    if not engines or not (is_jetson(machine) or machine.cards) or any(_driver(machine)):
        return  # where the driver is too old, other packages are needed anyway
    command = (
        f"pip install 'cuda-python=={wanted or '13'}.*'"
        if jetpack
        else f"pip install 'cuda-python=={_major(wanted)}.*'"
    )
    if not installed:
        yield Advice("mend", "cuda-python is missing, without which no engine runs", command)
    elif wanted and numbers(installed, 1) != numbers(wanted, 1):
        yield Advice("mend", f"cuda-python {installed} is for another CUDA than {wanted}, which is here", command)


def _major(version: str) -> str:
    return version.partition(".")[0] or "12"  # what most drivers take


def _driver(machine: Machine) -> Iterator[Advice]:
    needs_13 = [name for name in machine.packages if name.endswith("-cu13")]
    for card in machine.cards:
        if (
            needs_13
            and not is_jetson(machine)
            and (number := numbers(card.driver, 1))
            and number[0] < _DRIVER_OF_CUDA_13
        ):
            text = f"driver {card.driver} is too old for {needs_13[0]} (CUDA 13 needs {_DRIVER_OF_CUDA_13})"
            yield Advice("mend", text, "pip install tensorrt-cu12 'cuda-python==12.*'   # or a newer driver")


def _space(machine: Machine) -> Iterator[Advice]:
    if machine.disk_bytes is None:
        where = machine.cache or "the cache folder"
        yield Advice(
            "mend",
            f"{where} cannot be written; engines are kept there",
            "export SFPP_CACHE=/FOLDER/THAT/CAN/BE/WRITTEN",
        )
    elif machine.disk_bytes < _LITTLE_SPACE:
        text = f"only {machine.disk_bytes / 1e9:.1f} GB are free where engines are kept"
        yield Advice("mend", text, "df -h   # make room, or export SFPP_CACHE=/OTHER/DISK")


def _memory(machine: Machine) -> Iterator[Advice]:
    # The swap that Jetson Linux comes with is compressed memory, half of what there is.
    if is_jetson(machine) and 0 < machine.memory_bytes < _LITTLE_MEMORY and machine.swap_bytes < machine.memory_bytes:
        memory, swap = (f"{each / _GIB:.1f} GB of" for each in (machine.memory_bytes, machine.swap_bytes))
        text = f"{memory} memory and {swap} swap are little to build with"
        yield Advice("note", text, "add a swap file: docs/jetson.md, building with little memory")


def _power(machine: Machine) -> Iterator[Advice]:
    power, board = machine.power, board_of(machine)
    if power is None or not power.mode:
        return
    modes = power.modes or (board.modes if board else {})
    fastest = next((key for name in ("MAXN_SUPER", "MAXN") for key, each in modes.items() if each == name), None)
    if fastest is not None and modes[fastest] != power.mode:
        text = f"power mode {power.mode}; the fastest of this board is {modes[fastest]}"
        yield Advice("note", text, f"sudo nvpmodel -m {fastest}")


def _clocks(machine: Machine) -> Iterator[Advice]:
    if machine.gpu_mhz is not None and machine.gpu_mhz[0] != machine.gpu_mhz[1]:
        yield Advice("note", "clocks are not fixed; fix them before engines are built and timed", "sudo jetson_clocks")


def _cameras(machine: Machine) -> Iterator[Advice]:
    if is_jetson(machine) and machine.plugins and not machine.plugins.get("nvv4l2decoder"):
        yield Advice("note", "NVIDIA's GStreamer plugins are missing", "sudo apt-get install -y nvidia-l4t-gstreamer")


_CHECKS: tuple[Callable[[Machine], Iterator[Advice]], ...] = (
    *(_python, _jetpack, _errors, _tensorrt, _driver, _cuda, _opencv, _space),
    *(_power, _memory, _clocks, _cameras),
)
