"""Commands that are told to end, or are killed, at any moment: their files are whole or not there.

Few moments here; `pytest -m slow tests/test_signals.py` takes thirty of each signal, in most of an hour.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import onnx
import pytest

from sfpp.runtime.model_file import contract_of
from tests.runtime.video.clips import write_clip

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has no such signals")

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGKILL: -9}
SEED = random.Random().randrange(1 << 32)
FIRST_FRAGMENT = 4000  # bytes
# Where the tests themselves run in the background, or go on without a terminal.
HEARS_ALL = "signal.signal(signal.SIGHUP, signal.SIG_DFL); signal.signal(signal.SIGINT, signal.default_int_handler)"
RUN = ("sfpp.runtime.cli.run", "main")


@pytest.fixture(scope="module")
def model(demo_export):
    return demo_export(res="64x64").path


@pytest.fixture
def place(tmp_path):
    """Return a folder to work in, beside one for temporary files, one for caches, and a few pictures and a clip."""
    for name in ("work", "temporary", "cache", "frames"):
        (tmp_path / name).mkdir()
    write_clip(tmp_path / "clip.mp4", frames=150)
    for number in range(6):
        picture = np.random.default_rng(number).integers(0, 255, (64, 64, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "frames" / f"{number}.png"), picture)
    return tmp_path / "work"


def begin(place, module, function, *arguments):
    """Start a command as its script does, in its own folder and session."""
    script = (
        f"import signal, sys\n{HEARS_ALL}\nfrom sfpp.commands import _begun\nsys.exit(_begun({module!r}, {function!r}))"
    )
    environment = {
        **os.environ,
        "TMPDIR": str(place.parent / "temporary"),
        "SFPP_CACHE": str(place.parent / "cache"),
        "OMP_WAIT_POLICY": "passive",
    }
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=place,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process):
    errors = process.communicate()[1]
    assert process.returncode == 0, errors


def check_video(path, *, most=150):
    with av.open(str(path)) as container:
        assert 1 <= sum(1 for _ in container.decode(video=0)) <= most


def check_model(path):
    onnx.checker.check_model(onnx.load(str(path)))
    assert contract_of(path) is not None


def check_lines(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        json.loads(line)


def check_engine(path):
    assert json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["engine"]
    assert path.stat().st_size > 1_000_000


def check_report(path):
    text = path.read_text(encoding="utf-8")
    assert text.rstrip().endswith("</html>") if path.suffix == ".html" else json.loads(text)


CHECKS = {
    ".mp4": check_video,
    ".mkv": check_video,
    ".onnx": check_model,
    ".jsonl": check_lines,
    ".engine": check_engine,
    ".html": check_report,
    ".json": check_report,
    ".png": lambda path: cv2.imread(str(path)).shape,
}
COMMANDS = {
    "file": (*RUN, "MODEL", "CLIP", "out.mp4", "--masks", "masks", "--backend", "onnxruntime"),
    "recording": (
        *(*RUN, "MODEL", "test://?width=64&height=64&fps=30", "-o", "out.mkv", "-o", "out.mp4", "--json", "out.jsonl"),
        *("--max-frames", "60", "--backend", "onnxruntime"),
    ),
    "export": ("sfpp.export.cli", "command", "--res", "64x64", "-o", "out.onnx"),
    "calibrate": (
        *("sfpp.calibration.cli", "command", "MODEL", "--images", "FRAMES", "--frames", "4"),
        *("--backend", "onnxruntime"),
    ),
    "engine": (
        "sfpp.export.engine",
        "main",
        "MODEL",
        "-o",
        "out.engine",
        "--backend",
        "tensorrt-rtx",
        "--device",
        "sm86",
    ),
    "bench": (
        "sfpp.runtime.bench.cli",
        "main",
        "MODEL",
        "--backend",
        "onnxruntime",
        "--runs",
        "5",
        "--json",
        "out.json",
    ),
}


def arguments_of(command, place, model):
    places = {"MODEL": place / "model.onnx", "CLIP": place.parent / "clip.mp4", "FRAMES": place.parent / "frames"}
    if not places["MODEL"].exists():
        places["MODEL"].write_bytes(Path(model).read_bytes())
    return [places.get(word, word) for word in COMMANDS[command]]


def temporary_files(place):
    hidden = [path for path in place.rglob("*") if path.name.startswith(".")]
    return hidden + list((place.parent / "temporary").iterdir())


def check_files(place, *, killed=False):
    """Check all that lies there, and remove it but for the model.

    Of a recording that was killed, the first quarter of a second may not have reached the file.
    """
    for path in sorted(path for path in place.rglob("*") if path.is_file() and path.name != "model.onnx"):
        begun = killed and path.suffix in (".mkv", ".mp4") and path.stat().st_size < FIRST_FRAGMENT
        if path.name.startswith(".") or begun:
            continue
        CHECKS[path.suffix](path)
    for path in place.rglob("*"):
        if path.is_file() and path.name != "model.onnx" and not path.name.startswith("."):
            path.unlink()


def end_at_random(command, place, model, moments):
    if command == "engine":
        pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")
    print(f"seed {SEED}")
    chance = random.Random(f"{SEED} {command}")
    arguments = arguments_of(command, place, model)
    start_s = time.monotonic()
    finish(begin(place, *arguments))
    takes_s = time.monotonic() - start_s
    check_files(place)
    assert temporary_files(place) == []
    for number, code in SIGNALS.items():
        for again in [chance.random() < 0.3 for _ in range(moments)]:
            process = begin(place, *arguments)
            time.sleep(chance.uniform(0.05, takes_s))
            process.send_signal(number)
            if again:
                time.sleep(chance.uniform(0, 0.3))
                process.send_signal(number)
            errors = process.communicate()[1]
            assert process.returncode in (code, -number, 0), (number, errors)
            assert "Traceback" not in errors, (number, errors)
            check_files(place, killed=number == signal.SIGKILL)
            if number != signal.SIGKILL:
                assert temporary_files(place) == [], (number, errors)
    finish(begin(place, *arguments))  # which removes what killed ones have left
    assert temporary_files(place) == []


@pytest.mark.parametrize("command", ["file", "recording"])
def test_files_are_whole_or_not_there(command, place, model):
    end_at_random(command, place, model, 1)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_files_are_whole_or_not_there_thirty_times(command, place, model):
    end_at_random(command, place, model, 30)
