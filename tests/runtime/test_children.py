import ast
import subprocess
import sys
from pathlib import Path

import pytest

from sfpp.runtime import files
from sfpp.runtime.bench.memory import module_peak_bytes
from sfpp.runtime.errors import BackendError, UsageError
from sfpp.runtime.files import python_code, python_module
from sfpp.runtime.tensorrt.building import EngineSettings
from sfpp.runtime.tensorrt.engines import build_in_process_of_its_own
from sfpp.runtime.tensorrt.library import Library
from sfpp.runtime.video.sinks.push import PusherProcess, Receiver
from sfpp.runtime.video.sinks.window import _PROBE

ROOT = Path(__file__).parents[2]
# What children import first, and what more they need; each would tell of itself.
HIJACKED = ("json", "runpy", "linecache", "tokenize", "encodings", "sfpp", "numpy", "av", "cv2", "sitecustomize", "os")
# Other programs than Python may be started elsewhere.
OTHER_PROGRAMS = {  # GStreamer, nvidia-smi and what else tells of a machine, a converter's own environment
    "runtime/doctor/looking.py",
    "runtime/video/sources/gstreamer.py",
    "benchmarks/gpu/contestants.py",
    "benchmarks/other_runtimes.py",
}
FORKS = {"tooling/supervised.py"}  # it goes on with what is loaded, and looks for nothing


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A current folder whose modules write into a file that they were run, and end the process that runs them."""
    folder, marker = tmp_path / "beside", tmp_path / "marker"
    folder.mkdir()
    for name in HIJACKED:
        told = f"open({str(marker)!r}, 'a').write({name!r}); raise SystemExit(99)\n"
        (folder / f"{name}.py").write_text(told, encoding="utf-8")
    monkeypatch.chdir(folder)
    return marker


# Python 3.10 knows no -P; from 3.11 on only the line of code is left without it, which is what 3.10 does.
@pytest.fixture(params=["as it is", "3.10"])
def age(request, monkeypatch):
    if request.param == "3.10":
        if sys.version_info >= (3, 13):
            pytest.skip("this Python imports modules before the first line")
        monkeypatch.setattr(files, "_SAFE_PATH", ())


def test_the_trap_catches(trap):
    assert subprocess.run([sys.executable, "-c", "import json"], check=False).returncode == 99
    # Python 3.13 imports what shows the source of errors before the first line.
    assert trap.read_text() == ("linecache" if sys.version_info >= (3, 13) else "json")


@pytest.mark.usefixtures("age")
def test_nothing_in_the_current_folder_is_run(trap):
    subprocess.run(**python_code("import json, numpy, sfpp.runtime, runpy"), check=True)
    subprocess.run(**python_module("json.tool", "--help"), check=True, stdout=subprocess.DEVNULL)
    assert not trap.exists()


@pytest.mark.usefixtures("age")
def test_no_child_that_sfpp_starts_runs_it(trap):
    with pytest.raises(BackendError, match="memory: error: "):
        module_peak_bytes(
            "sfpp.runtime.bench.memory",
            '{"model": "no.onnx", "backend": null, "precision": null, "threads": 1, "frame": null, "fitted": false}',
        )
    with pytest.raises(UsageError, match="the library is 'none'"):
        build_in_process_of_its_own(
            Library("none", sys),
            Path("no.onnx"),
            Path("no.engine"),
            EngineSettings(),
            precision="fp32",
            progress=lambda *told: None,
        )
    pusher = PusherProcess(Receiver.from_uri("udp://127.0.0.1:9"), size_hw=(48, 64), patience_s=5.0)
    pusher.close(patience_s=30)
    subprocess.run(**python_code(_PROBE), check=False, capture_output=True)
    assert not trap.exists()


def test_a_child_finds_what_is_found_here(tmp_path, monkeypatch):
    folder = tmp_path / "with : and spaces"
    folder.mkdir()
    (folder / "known_here.py").write_text("NUMBER = 7\n", encoding="utf-8")
    command = python_code("import known_here; print(known_here.NUMBER, *sys.argv[1:])", "a", "b")
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run(**command, check=True, capture_output=True)
    monkeypatch.syspath_prepend(str(folder))
    command = python_code("import known_here; print(known_here.NUMBER, *sys.argv[1:])", "a", "b")
    assert subprocess.run(**command, check=True, capture_output=True).stdout.split() == [b"7", b"a", b"b"]
    (folder / "main_here.py").write_text("import sys; print(__name__, *sys.argv[1:])\n", encoding="utf-8")
    done = subprocess.run(**python_module("main_here", "a"), check=True, capture_output=True)
    assert done.stdout.split() == [b"__main__", b"a"]


def test_what_the_user_adds_to_the_path_still_counts(tmp_path):
    (tmp_path / "known_there.py").write_text("NUMBER = 8\n", encoding="utf-8")
    code = (
        "import subprocess; from sfpp.runtime.files import python_code;"
        "subprocess.run(**python_code('import known_there; print(known_there.NUMBER)'), check=True)"
    )
    here = python_code(code)["args"]
    here = [*here[:-1], code]  # without the path that would be handed on
    done = subprocess.run(here, check=True, capture_output=True, env={"PYTHONPATH": str(tmp_path)})
    assert int(done.stdout) == 8


def calls(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node


def test_no_other_place_starts_python():
    """Also not by other ways to it: forks, pools of processes, replaced processes, a shell."""
    starting = ("subprocess.", "os.exec", "os.spawn", "os.posix_spawn", "os.system", "os.popen", "os.fork", "pty.")
    files = [
        path
        for folder in ("runtime", "tooling", "export", "calibration", "benchmarks", "samples")
        for path in (ROOT / folder).rglob("*.py")
    ]
    found = 0
    for path in files:
        name = path.relative_to(ROOT).as_posix()
        text = path.read_text(encoding="utf-8")
        assert name == "runtime/files.py" or "sys.executable" not in text, name
        for word in ("multiprocessing", "ProcessPoolExecutor", "create_subprocess", "executable as"):
            assert word not in text, f"{name}: {word}"
        for call in calls(path):
            if not ast.unparse(call.func).startswith(starting) or name in OTHER_PROGRAMS | FORKS:
                continue
            through = [ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg is None]
            assert any(each.startswith(("python_code(", "python_module(")) for each in through), (
                f"{name}:{call.lineno} starts a process by itself"
            )
            found += 1
    assert found >= 4
