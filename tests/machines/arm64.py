"""The runtime on an emulated ARM machine: ``make test-arm64`` and ``make test-arm64-all``; see ``arm64.sh``.

    python -m tests.machines.arm64          # integer kernels, self-tests of exported models, part of tests/runtime
    python -m tests.machines.arm64 all      # all of tests/runtime instead of the part

Models are exported and calibrated here, on the host, as they are for a device; the emulated machine has no torch.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from sfpp.calibration import calibrate
from sfpp.export import export_onnx
from sfpp.runtime.demo import demo_clip
from tests.golden import FOLDER, GoldenCase
from tests.machines.results import ENDED, ROOT, report

ENTER = (str(Path(__file__).with_name("arm64.sh")), "enter", str(ROOT / "build" / "arm64"))
MODELS = ROOT / "build" / "arm64" / "models"
OWN = "tests/machines/test_other_machines.py"
QUICK = (
    "tests/runtime/backends",
    "tests/runtime/cli/test_run_self_test.py",
    *(f"tests/runtime/test_{name}.py" for name in ("labels", "pose", "segmentation", "self_test")),
)
# Jetson Orin's Cortex-A78AE has the instructions of the first that matter here (dot products, float16); the second has
# neither, the third also integer matrix products, bfloat16 and SVE.
PROCESSORS = ("cortex-a76", "cortex-a72", "neoverse-v1")


def main(arguments: list[str]) -> int:
    """Run pytest on each processor, print what ran, and return the first exit code that is not 0."""
    if arguments not in ([], ["all"]):
        sys.exit(f"expected nothing or all, got {' '.join(arguments)}")
    target = "arm64-all" if arguments else "arm64"
    export_models()
    code, files = 0, {}
    for processor in PROCESSORS:
        files[processor] = ROOT / "build" / f"{target}.{processor}.xml"
        chosen = (OWN, *(["tests/runtime"] if arguments else QUICK))
        if processor != PROCESSORS[0]:
            chosen = (OWN, "-k", "exact or fast")
        code = run_pytest(processor, files[processor], chosen) or code
        if code not in ENDED:
            return code
    report(target, [*ENTER, "python3"], files, machine=f"emulated {', '.join(PROCESSORS)}")
    return code


def run_pytest(processor: str, output: Path, chosen: tuple[str, ...]) -> int:
    """Run tests on a processor."""
    workers = ("-n", os.environ.get("WORKERS", "2"), "--dist", "loadfile")
    pytest = ("python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", *workers, f"--junitxml={output}", *chosen)
    environment = {**os.environ, "QEMU_CPU": processor, "SFPP_MODELS": str(MODELS), "PASS": "SFPP_MODELS"}
    return subprocess.run([*ENTER, *pytest], cwd=ROOT, env=environment, check=False).returncode


def export_models() -> None:
    """Export small models of every kind, and one in INT8."""
    shutil.rmtree(MODELS, ignore_errors=True)
    MODELS.mkdir(parents=True)
    fast = export_onnx(path=MODELS / "fast.onnx", variant="fast", res="320x192").path
    export_onnx(path=MODELS / "hq.onnx", variant="hq", res="320x192")
    export_onnx(path=MODELS / "local.onnx", variant="hq", matching="local", res="320x192")
    export_onnx(path=MODELS / "pose.onnx", task="pose")
    if FOLDER.is_dir():
        weights = GoldenCase("edaformer_t_2211-222_256x320").save_checkpoint(MODELS)
        export_onnx(weights, MODELS / "edaformer.onnx", isr="2211-222", res="320x256")
    calibrate(
        fast,
        demo_clip(),
        precision=("int8",),
        frames=8,
        held_out=2,
        output=MODELS,
        cache=False,
        latency=False,
        report=False,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
