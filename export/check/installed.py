"""What every TensorRT version would make of a file: by our rules, and by NVIDIA's parser and builder if installed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sfpp.export.check import CheckReport, check_model, report_text
from sfpp.export.check.findings import NATIVE
from sfpp.runtime.errors import BackendError, ModelFileError, UsageError
from sfpp.runtime.scratch import scratch_folder
from sfpp.runtime.tensorrt.building import EngineSettings, PhaseProgress
from sfpp.runtime.tensorrt.engines import build_in_process_of_its_own
from sfpp.runtime.tensorrt.library import LIBRARIES, Library, is_installed, library_of

_PURPOSE = "asking NVIDIA's parser"
# TensorRT 8.6 is best effort: what it refuses is reported, and does not fail a check.
_PROMISED = (*NATIVE, "rtx")


@dataclass(frozen=True)
class Answer:
    """What an installed library says of a file itself; ``failure`` is empty if it takes it.

    TensorRT-RTX is asked to build, which takes seconds; TensorRT only to parse, since building takes minutes.
    """

    library: str
    version: str
    failure: str = ""

    def text(self) -> str:
        """Return the answer as a line."""
        done = "builds it" if self.library == "tensorrt-rtx" else "parses it (not built)"
        return f"{self.library} {self.version}, installed here: {self.failure or done}"


@dataclass(frozen=True)
class Checked:
    """The rules' report, and the answers of the libraries that are installed."""

    report: CheckReport
    answers: tuple[Answer, ...]

    @property
    def builds(self) -> bool:
        """Whether nothing prevents the versions that are promised."""
        failing = any(each.fails and each.version in _PROMISED for each in self.report.verdicts)
        return not failing and not any(answer.failure for answer in self.answers)


def check(
    model: str | os.PathLike[str],
    *,
    backend: str | None = None,
    notify: Callable[[str], object] = lambda line: None,
    progress: PhaseProgress = lambda phase, done, total: None,
) -> Checked:
    """Check an ONNX file, ours or another tool's, without keeping anything.

    Args:
        model: the file.
        backend: the library to ask besides, which must be installed then; None asks those that are.
        notify: called with what is being done.
        progress: called with each phase of a build.

    Raises:
        ModelFileError: no such file, or not an ONNX model.
        MissingDependencyError: onnx, or the library that was named, is not installed.
    """
    report = check_model(model)
    names = [name for name in LIBRARIES if is_installed(name)] if backend is None else [backend]
    libraries = [library_of(name, purpose=_PURPOSE) for name in names]
    answers = []
    for library in libraries:
        notify(f"asking {library.title} {library.version}")
        answers.append(_asked(library, Path(model), progress))
    return Checked(report, tuple(answers))


def _asked(library: Library, model: Path, progress: PhaseProgress) -> Answer:
    with scratch_folder() as folder:
        try:
            build_in_process_of_its_own(
                library,
                model,
                folder / "checked.engine",
                EngineSettings(),
                precision="fp32",
                progress=progress,
                parse_only=not library.is_rtx,
            )
        except (BackendError, ModelFileError, UsageError) as error:
            return Answer(library.name, library.version, str(error))
    return Answer(library.name, library.version)


def checked_text(checked: Checked) -> str:
    """Return everything for a terminal."""
    answers = [each.text() for each in checked.answers] or [
        "NVIDIA's own parser was not asked: neither TensorRT nor TensorRT-RTX is installed here"
    ]
    refused = any(each.failure for each in checked.answers)
    return "\n".join([*answers, "", report_text(checked.report, refused=refused)])
