"""Models opened on a card: the input in its memory, the output in its memory, and each step waited for."""

from __future__ import annotations

import gc
import json
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.gpu.matrix import COMPILED, Precision
from benchmarks.speed.pytorch import library_model
from benchmarks.speed.results import PYTORCH
from sfpp.runtime.backends.onnxruntime import DEVICES, providers_for, session_options
from sfpp.runtime.bench.measured_model import StageTimes
from sfpp.runtime.errors import BackendError

DeviceName = Literal["cpu", "cuda"]
_COPIES = ("MemcpyFromHost", "MemcpyToHost")


@dataclass(frozen=True)
class Device:
    """Where everything runs; ``cpu`` is for trying the benchmark out."""

    name: DeviceName

    def synchronize(self) -> None:
        """Wait for all work."""
        if self.name == "cuda":
            torch.cuda.synchronize()

    def check(self) -> None:
        """End this process if the card takes no more work from it, as after an illegal access: another may go on."""
        try:
            self.synchronize()
        except RuntimeError as error:
            raise SystemExit(f"the card takes no more work from this process: {error}") from error

    def free_bytes(self, *, tidy: bool) -> int | None:
        """Return the card's free memory; ``tidy`` first gives back what PyTorch only keeps for later."""
        if self.name == "cpu":
            return None
        torch.cuda.synchronize()
        if tidy:
            gc.collect()
            torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info()[0])

    def facts(self) -> dict[str, Any]:
        """Return name, driver and versions."""
        import onnxruntime

        facts = {"card": "cpu", "torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
        if self.name == "cpu":
            return facts
        properties = torch.cuda.get_device_properties(0)
        return {
            **facts,
            "card": properties.name,
            "driver": _driver(),
            "compute_capability": f"{properties.major}.{properties.minor}",
            "memory_bytes": properties.total_memory,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        }


@dataclass(frozen=True, eq=False)
class Opened:
    """A model bound to its input: to the card, through the network, back.

    ``fallback_nodes`` counts by operator what runs on the CPU all the same, ``copy_nodes`` the copies that the library
    puts in between; None for PyTorch.
    """

    device: Device
    upload: Callable[[], Any]
    infer: Callable[[Any], Tensor]
    fallback_nodes: dict[str, int] | None = None
    copy_nodes: int | None = None

    def run(self, *, clock: Callable[[], float] = time.perf_counter) -> StageTimes:
        """Run once; the first and last stage are the copies from and to ordinary host memory.

        Raises:
            BackendError: the library failed.
        """
        with failures_named():
            start = clock()
            prepared = self.upload()
            self.device.synchronize()
            ready = clock()
            output = self.infer(prepared)
            self.device.synchronize()
            done = clock()
            output.cpu()
            end = clock()
        return StageTimes((ready - start) * 1e3, (done - ready) * 1e3, (end - done) * 1e3)

    def answer(self) -> Tensor:
        """Return a copy of the output, on the device.

        Raises:
            BackendError: the library failed.
        """
        with failures_named():
            output = self.infer(self.upload()).clone()
            self.device.synchronize()
        return output


@contextmanager
def failures_named() -> Iterator[None]:
    """Turn whatever a library raises into a BackendError."""
    try:
        yield
    except Exception as error:  # PyTorch, ONNX Runtime and the compiler have no common base
        lines = str(error).strip().splitlines() or [""]
        raise BackendError(f"{type(error).__name__}: {lines[0]}") from error


def open_graph(model: onnx.ModelProto, values: NDArray[Any], device: Device, precision: Precision) -> Opened:
    """Open a graph in ONNX Runtime, run it once, and count what does not run on the device.

    Args:
        model: with its weights.
        values: its input.
        device: where it runs.
        precision: of float32 products: TF32 is ONNX Runtime's own choice.

    Raises:
        BackendError: it does not open there, or fails.
    """
    import onnxruntime

    with failures_named(), tempfile.TemporaryDirectory() as folder:
        options = session_options(onnxruntime, threads=None)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "trace")
        wanted = DEVICES[device.name].provider
        providers = providers_for(
            device.name,
            Path("model.onnx"),
            precision="fp32" if precision == "fp32" else None,
            cache=False,
            available=onnxruntime.get_available_providers(),
        )
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=providers, enable_fallback=0
        )
        # A provider whose libraries do not load is dropped without an exception.
        if (used := session.get_providers()[0]) != wanted:
            raise BackendError(f"ONNX Runtime could not start {wanted} and uses {used}; it says why above")
        opened = _bound(session, values, device)
        opened.infer(opened.upload())
        # What was not profiled until now never is: the runs that are timed pay nothing for it.
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    fallback, copies = placement(events, wanted)
    return Opened(device, opened.upload, opened.infer, fallback_nodes=fallback, copy_nodes=copies)


def _bound(session: Any, values: NDArray[Any], device: Device) -> Opened:
    """Bind input and output to memory of the device, which PyTorch holds as it does for its own models."""
    source = torch.from_numpy(values)
    given = torch.empty_like(source, device=device.name)
    binding = session.io_binding()
    (declared,), (result,) = session.get_inputs(), session.get_outputs()
    kind = np.uint8 if result.type == "tensor(uint8)" else np.float32
    output = torch.empty(tuple(result.shape), dtype=getattr(torch, np.dtype(kind).name), device=device.name)
    binding.bind_input(declared.name, device.name, 0, values.dtype.type, tuple(values.shape), given.data_ptr())
    binding.bind_output(result.name, device.name, 0, kind, tuple(output.shape), output.data_ptr())

    def upload() -> Tensor:
        return given.copy_(source)

    def infer(_: Tensor) -> Tensor:
        session.run_with_iobinding(binding)
        return output

    return Opened(device, upload, infer)


def placement(events: list[dict[str, Any]], wanted: str) -> tuple[dict[str, int], int]:
    """Return the operators that another provider ran, with their number, and how many copies were put in, of one run.

    Args:
        events: of ONNX Runtime's profile.
        wanted: the provider that was asked for.
    """
    nodes = [
        (event["args"]["op_name"], event["args"].get("provider", wanted))
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    ]
    copies = sum(name in _COPIES for name, _ in nodes)
    elsewhere = Counter(name for name, provider in nodes if provider != wanted and name not in _COPIES)
    return dict(elsewhere.most_common()), copies


def open_pytorch(
    name: str, checkpoint: Path, image: NDArray[np.float32], device: Device, precision: Precision
) -> Opened:
    """Open Transformers' model in PyTorch: attention written out, fused, or all of it compiled.

    Args:
        name: ``pytorch``, ``pytorch:sdpa`` or ``pytorch:compiled``.
        checkpoint: a Transformers folder.
        image: (1, 3, H, W), normalized.
        device: where it runs.
        precision: float16 holds weights and values in it throughout.

    Raises:
        BackendError: it does not fit, or does not compile.
    """
    kind = torch.float16 if precision == "fp16" else torch.float32
    source = torch.from_numpy(image)
    with failures_named():
        model = library_model(checkpoint, attention="eager" if name == PYTORCH else "sdpa").to(device.name, kind)
        compiled: Any = torch.compile(model, dynamic=False) if name == COMPILED else model

        def infer(pixels: Tensor) -> Tensor:
            with torch.inference_mode():
                logits: Tensor = compiled(pixel_values=pixels).logits
            return logits

        # The type is changed on the card: in one call PyTorch would do it on the CPU.
        opened = Opened(device, lambda: source.to(device.name).to(kind), infer)
        opened.infer(opened.upload())
        device.synchronize()
    return opened


@contextmanager
def product_precision(precision: Precision) -> Iterator[None]:
    """Let PyTorch round float32 products to TF32 where that is what is measured, and nowhere else."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    allowed = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = allowed, allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None


def labels_of(output: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Return labels (H, W) uint8 at the frame's size, of logits (1, classes, h, w) or of labels (1, H, W)."""
    if output.dtype == torch.uint8:
        return output[0]
    upsampled = F.interpolate(output.float(), size=size_hw, mode="bilinear", align_corners=False)
    return upsampled.argmax(1)[0].to(torch.uint8)
