"""Building in a process of its own, so that one that is killed can be told of, and Ctrl-C leaves nothing behind."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from sfpp.runtime import errors
from sfpp.runtime.errors import BackendError, SfppError
from sfpp.runtime.files import python_module
from sfpp.runtime.tensorrt.building import PhaseProgress
from sfpp.runtime.tensorrt.library import Library
from sfpp.runtime.tensorrt.settings import EngineSettings

_WORKER = "sfpp.runtime.tensorrt.worker"
_LAST_WORDS = 6  # lines


@dataclasses.dataclass(frozen=True)
class Built:
    """What a finished build tells: the library's version, and this machine's card, if there is one."""

    version: str
    card: str
    capability: str


def build_in_process_of_its_own(
    library: Library,
    model: Path,
    engine: Path,
    settings: EngineSettings,
    *,
    precision: str,
    progress: PhaseProgress,
    parse_only: bool = False,
) -> Built:
    """Build ``model`` into the file ``engine``; arguments and errors are those of :func:`.building.engine_bytes`.

    Raises:
        BackendError: also where the process is killed or crashes.
    """
    job = {
        "library": library.name,
        "model": str(model),
        "engine": str(engine),
        "precision": precision,
        "parse_only": parse_only,
        "settings": dataclasses.asdict(settings),
    }
    # Not a pipe: nobody reads it during the build, and a library that prints more than it holds would wait for ever.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as words, _worker(job, words) as process:
        assert process.stdout is not None
        for line in process.stdout:
            message = json.loads(line)
            if "phase" in message:
                progress(*message["phase"])
            elif "error" in message:
                raise _as_raised(message["error"])
            else:
                return Built(**message["done"])
        code = process.wait()
        words.seek(0)
        raise _ended(code, library, words.read())


@contextlib.contextmanager
def _worker(job: dict[str, Any], words: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """Start the worker with a job, its errors into a file; whatever happens, it does not outlive the block."""
    with subprocess.Popen(
        **python_module(_WORKER),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=words,
        text=True,
        encoding="utf-8",
    ) as process:
        try:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it ended at once; its last words say why
                process.stdin.write(json.dumps(job, default=str) + "\n")
                process.stdin.flush()
            yield process
        finally:
            process.kill()


def _as_raised(error: dict[str, str]) -> SfppError:
    """Return the worker's error as it was raised there."""
    kind = getattr(errors, error["kind"], BackendError)
    found: SfppError = BackendError(error["message"])
    if kind is not errors.MissingDependencyError:
        found = kind(error["message"])
    return found


def _ended(code: int, library: Library, last_words: str) -> BackendError:
    """Return what is to be said of a worker that ended without a word."""
    if code == -signal.SIGKILL:
        return BackendError(
            f"the build was killed, most likely by the system because memory ran out; {library.title} needs several "
            "times the model's size: close other programs, add swap, set --workspace 512MiB, or build for a smaller "
            "input size"
        )
    told = "; ".join(line.strip() for line in last_words.strip().splitlines()[-_LAST_WORDS:])
    how = f"by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"with code {code}"
    return BackendError(
        f"the build ended {how}, which is a fault in {library.title} or its installation"
        + (f": {told}" if told else "; `sfpp-engine --check` may name the node that it does not take")
    )
