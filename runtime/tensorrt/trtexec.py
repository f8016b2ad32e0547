"""The line that builds the same engine with NVIDIA's own tool."""

from __future__ import annotations

import shlex
from pathlib import Path

from sfpp.runtime.tensorrt.library import Library, version_numbers
from sfpp.runtime.tensorrt.settings import CURRENT, EngineSettings


def trtexec_line(library: Library, model: Path, engine: Path, settings: EngineSettings, *, precision: str) -> str:
    """Return the equivalent call of ``trtexec``, or of ``tensorrt_rtx``, which is its name in TensorRT-RTX."""
    numbers = version_numbers(library.version)
    words = ["tensorrt_rtx" if library.is_rtx else "trtexec", f"--onnx={model}", f"--saveEngine={engine}"]
    if not library.is_rtx and numbers < (10,):
        lower = {"fp16": ["--fp16"], "int8": ["--int8", "--fp16"]}.get(precision, [])
        words += [*lower, "--precisionConstraints=obey"]
    elif not library.is_rtx and numbers < (11,):
        words.append("--stronglyTyped")  # later versions have no other networks
    if settings.workspace_bytes is not None:
        words.append(f"--memPoolSize=workspace:{settings.workspace_bytes / (1 << 20):.12g}M")
    if settings.timing_cache is not None:
        words.append(f"--timingCacheFile={settings.timing_cache}")
    if settings.dla is not None:
        words += [f"--useDLACore={settings.dla}", "--allowGPUFallback"]
    if settings.version_compatible:
        words.append("--versionCompatible")
    if settings.hardware_compatible:
        words.append("--hardwareCompatibilityLevel=ampere+")
    if library.is_rtx and settings.devices == (CURRENT,):
        words.append("--useGpu")
    elif library.is_rtx and settings.devices:
        words.append("--computeCapabilities=" + ",".join(each.removeprefix("sm") for each in settings.devices))
    return shlex.join([*words, "--skipInference"])
