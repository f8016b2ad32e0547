"""Virtual environments in which a library makes its own files: in ``build/libraries``, kept from run to run.

Torch and whatever else the tests have is shared: a ``.pth`` file of the environment adds their packages.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "build/libraries"
# The release of torchvision that goes with a release of torch; it brings no other packages.
TORCHVISION = {"2.13": "0.28.0"}
# Without what they need where the tests have it, and without OpenCV's own window.
MMSEGMENTATION = (
    *("mmsegmentation==1.2.2", "mmengine==0.10.7", "mmcv-lite==2.1.0"),
    *("addict==2.4.0", "yapf==0.43.0", "platformdirs==4.14.8", "termcolor==3.3.0", "prettytable==3.18.0"),
    *("wcwidth==0.9.4", "ftfy==6.3.1", "scipy==1.17.1"),
)
PACKAGES = {
    "mmsegmentation": MMSEGMENTATION,
    "transformers4": ("transformers==4.57.6", "tokenizers==0.22.2", "huggingface_hub==0.36.2", "torchvision"),
    "transformers5": ("torchvision",),
    "smp": ("segmentation_models_pytorch==0.6.0", "timm==1.0.31", "torchvision"),
    "lightning": (
        *("lightning==2.6.6", "pytorch-lightning==2.6.6", "lightning-utilities==0.15.3", "torchmetrics==1.9.0"),
    ),
}


def environment(name: str) -> Path:
    """Return the Python of a library's environment, which is made unless it is there.

    Skips the test where the packages cannot be fetched.
    """
    folder, packages = FOLDER / name, _pinned(PACKAGES[name])
    python, ready = folder / "bin/python", folder / "packages.txt"
    if ready.is_file() and ready.read_text("utf-8").split() == packages:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    own = [path for path in sys.path if path.endswith("site-packages")]
    (site / "tests.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in own), "utf-8")
    command = [python, "-m", "pip", "install", "-q", "--no-deps", "--disable-pip-version-check", *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip cannot install {' '.join(packages)}: {done.stderr.strip()[-500:]}")
    ready.write_text("\n".join(packages), "utf-8")
    return python


def made(name: str, job: dict[str, Any]) -> dict[str, str]:
    """Run a maker in a library's environment, and return what it says of what it made."""
    command = [environment(name), Path(__file__).with_name("makers.py"), json.dumps(job)]
    # The environment's packages go before those of the tests.
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    said: dict[str, str] = json.loads((Path(job["out"]) / "made.json").read_text("utf-8"))
    return said


def _pinned(packages: tuple[str, ...]) -> list[str]:
    torch = ".".join(metadata.version("torch").split(".")[:2])
    if "torchvision" in packages and torch not in TORCHVISION:
        pytest.skip(f"which torchvision goes with torch {torch} is not noted; known: {', '.join(TORCHVISION)}")
    return [f"torchvision=={TORCHVISION[torch]}" if each == "torchvision" else each for each in packages]
