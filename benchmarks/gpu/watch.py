"""The process that watches: it starts the one that measures, ends it when a step hangs, and goes on after a crash."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.gpu.matrix import COMPILED, PRESETS
from benchmarks.gpu.parts import GRAPHS, LIBRARIES, ROOT, Parts
from benchmarks.gpu.results import Results, read_gpu_results
from sfpp.runtime.errors import SfppError, UsageError
from sfpp.runtime.files import python_module

_MEASURE = "benchmarks.gpu.measure"
_TIMING = "timing"
_START_S = 180.0  # for importing PyTorch from a cold disk
_COMPILE_S = 60.0
_TESTS_S = 45.0  # of the time is kept for them, where there is that much


@dataclass(frozen=True)
class Settings:
    """What to measure and for how long.

    ``retry`` measures again what failed in an earlier run; ``output`` is a folder that gets a copy of the results, and
    of what the libraries say, after each step.
    """

    folder: Path
    device: str = "cuda"
    preset: str = "full"
    minutes: float = 9.0
    step_seconds: float = 100.0
    runs: int = 50
    seconds: float = 4.0
    tests: bool = True
    retry: bool = False
    output: Path | None = None


class Watch:
    """One run: unpack, measure, test.

    Args:
        settings: of the run.
        notify: called with lines that say what is being done.

    Raises:
        ModelFileError: pieces are missing.
    """

    def __init__(self, settings: Settings, *, notify: Callable[[str], object]) -> None:
        self._settings, self._notify = settings, notify
        self._end = time.time() + settings.minutes * 60
        self._parts = Parts(settings.folder)
        self._groups = {group.title: group for group in PRESETS[settings.preset]}
        self.results_path = settings.folder / f"results_{settings.device}_{settings.preset}.json"
        self._log_path = self.results_path.with_suffix(".log")
        self._log_start = 0
        self._unpack()

    def run(self) -> None:
        """Measure what is left and run the tests for cards.

        Raises:
            SfppError: the measuring process does not start.
        """
        self._begin()
        kept_s = min(_TESTS_S, 0.2 * self._settings.minutes * 60) if self._settings.tests else 0.0
        until = self._end - kept_s
        while time.time() < until and any(map(self._results().pending, self._groups.values())):
            self._measure(until)
        results = self._results()
        if self._settings.tests and "tests" not in results.facts:
            self._notify("running the tests for cards")
            results.facts["tests"] = run_tests(max(5.0, self._end - time.time()))
            results.write(self.results_path)
            self._copy()

    def _unpack(self) -> None:
        self._notify("unpacking graphs and libraries")
        self._parts.unpack(GRAPHS)
        if self._parts.unpack(LIBRARIES):
            sys.path.insert(0, str(self._parts.content(LIBRARIES)))  # the processes look where this one does
        elif self._settings.device == "cuda":
            self._notify("no libraries were prepared: the ONNX Runtime that is installed here must know CUDA")
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        wanted = self._parts.read_list().get("python", python)
        if wanted != python:
            raise UsageError(f"the libraries are for Python {wanted} and this is {python}; run with python{wanted}")

    def _begin(self) -> None:
        """Go on with what is there if it is of the same graphs, else begin anew."""
        graphs = self._parts.read_list()["archives"][GRAPHS]
        if self.results_path.is_file():
            results = self._results()
            if results.facts.get("graphs") == graphs:
                if self._settings.retry:
                    results.rows = [row for row in results.rows if row.missing is None]
                    results.facts.pop("tests", None)
                    results.write(self.results_path)
                return
            self._notify(f"{self.results_path.name} is of other graphs: beginning anew")
        Results([], {"graphs": graphs}).write(self.results_path)

    def _results(self) -> Results:
        return read_gpu_results(self.results_path)

    def _copy(self) -> None:
        if self._settings.output is not None:
            self._settings.output.mkdir(parents=True, exist_ok=True)
            for path in (self.results_path, self._log_path):
                if path.is_file():
                    shutil.copyfile(path, self._settings.output / path.name)

    def _measure(self, until: float) -> None:
        """Run the measuring process until it ends, hangs, or the time is over; note what it failed at."""
        settings = self._settings
        given = {
            "folder": str(settings.folder),
            "results": str(self.results_path),
            "device": settings.device,
            "preset": settings.preset,
            "limits": {"until": until, "runs": settings.runs, "seconds": settings.seconds},
        }
        with self._log_path.open("a", encoding="utf-8") as log:
            self._log_start = log.tell()
            process = _start(_MEASURE, json.dumps(given), errors=log)
        assert process.stdout is not None
        lines = _lines_of(process.stdout)
        step: str | None = None
        try:
            while True:
                # A step that began in time may end a little later.
                limit_s = min(self._limit_s(step), until + settings.step_seconds / 4 - time.time())
                line = lines.get(timeout=max(limit_s, 0.1))
                if line is None:
                    break
                self._notify(line)
                self._copy()
                step = line if line.partition(": ")[0] in self._groups else step
            code = process.wait()
            if code != 0:
                self._fail(step, f"the measuring process ended with {_words_of(code)}{self._last_words()}")
        except queue.Empty:
            if time.time() < until:
                self._fail(step, f"took longer than {self._limit_s(step):g} s")
        finally:
            _end(process)
            self._copy()

    def _limit_s(self, step: str | None) -> float:
        """Return how long a step may take; None is the start of the process."""
        if step is None:
            return _START_S
        return min(self._settings.step_seconds, _COMPILE_S) if step.endswith(COMPILED) else self._settings.step_seconds

    def _fail(self, step: str | None, reason: str) -> None:
        """Note a step's failure, so that it is not tried again."""
        if step is None:
            raise SfppError(f"before it measured anything {reason}; {self._log_path} has all of it")
        self._notify(f"failed: {step}: {reason}")
        title, _, name = step.partition(": ")
        group, results = self._groups[title], self._results()
        for each in group.names if name == _TIMING else (name,):
            if not results.row(group, each).is_final:
                results.fail(group, each, reason)
        results.write(self.results_path)

    def _last_words(self) -> str:
        """Return the last line that the process wrote to stderr, which is what a traceback ends with."""
        said = self._log_path.read_bytes()[self._log_start :].decode("utf-8", errors="replace")
        lines = said.strip().splitlines()
        return f": {lines[-1]}" if lines else ""


def run_tests(limit_s: float) -> dict[str, Any]:
    """Run the tests that need a card, for so long; return how many passed, which failed, and why others did not run."""
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text("utf-8")]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        # A library of another version may warn of what ours does not.
        options = ["-m", "gpu", "-q", "-W", "default", "-p", "no:cacheprovider", f"--junitxml={report}"]
        process = _start("pytest", *options, *map(str, files))
        try:
            process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            return {"cut_off_after_s": limit_s}
        finally:
            _end(process)
        return _counted(report) if report.is_file() else {"exit_code": process.returncode}


def _counted(report: Path) -> dict[str, Any]:
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = [each for each in cases if each.find("failure") is not None or each.find("error") is not None]
    skipped = [found.get("message", "") for each in cases if (found := each.find("skipped")) is not None]
    return {
        "passed": len(cases) - len(failed) - len(skipped),
        "failed": [f"{each.get('classname')}.{each.get('name')}" for each in failed],
        "skipped": {reason: skipped.count(reason) for reason in dict.fromkeys(skipped)},
    }


def _start(module: str, *arguments: str, errors: IO[str] | None = None) -> subprocess.Popen[str]:
    # A session of its own: compilers that it started are ended with it.
    options: dict[str, Any] = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": errors, "text": True}
    return subprocess.Popen(**python_module(module, *arguments), **options, start_new_session=True)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _lines_of(stream: IO[str]) -> queue.Queue[str | None]:
    """Return a queue that gets the stream's lines, and None at its end."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in stream:
            lines.put(line.rstrip("\n"))
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def _words_of(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
