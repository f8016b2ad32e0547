"""A recording whose program is killed, as by a cut of power to it alone."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from sfpp.runtime.files import python_code
from sfpp.runtime.video import open_source

_TIMES = 5
_RECORDED_S = 6.0
_SFPP_RUN = "from sfpp.runtime.cli.run import main; sys.exit(main(sys.argv[1:]))"
_SOURCE = "test://?width=320&height=192&fps=25"


@dataclass(frozen=True)
class Crash:
    """Of each kill: what was answered until then, and what of it the video has, in seconds."""

    answered_s: tuple[float, ...]
    kept_s: tuple[float, ...]

    def sentence(self) -> str:
        """Return it in words."""
        lost_s = [answered - kept for answered, kept in zip(self.answered_s, self.kept_s, strict=True)]
        return (
            f"killed {len(lost_s)} times while recording: every video plays, and lacks the last "
            f"{min(lost_s):.2f} to {max(lost_s):.2f} s"
        )


def crash(model: Path) -> Crash:
    """Record and kill, again and again."""
    answered, kept = zip(*(_killed(model) for _ in tqdm(range(_TIMES), desc="kills")), strict=True)
    return Crash(answered, kept)


def _killed(model: Path) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as name:
        video, lines = Path(name) / "out.mp4", Path(name) / "out.jsonl"
        quiet = subprocess.DEVNULL
        arguments = [str(model), _SOURCE, "-o", str(video), "--json", str(lines)]
        with subprocess.Popen(**python_code(_SFPP_RUN, *arguments), stdout=quiet, stderr=quiet) as process:
            while _answered_s(lines) < _RECORDED_S:
                assert process.poll() is None, "sfpp-run ended by itself"
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
        answered_s = _answered_s(lines)
        with open_source(str(video)) as source:
            times_s = [frame.time_s for frame in source]
        # The video counts from its first frame, which may not have been the source's first.
        first_s = json.loads(lines.read_text("utf-8").split("\n", 1)[0])["time_s"]
        return round(answered_s, 3), round(first_s + times_s[-1], 3)


def _answered_s(lines: Path) -> float:
    """Return the time of the last frame that a whole line tells of."""
    whole = lines.read_text("utf-8").rpartition("\n")[0] if lines.is_file() else ""
    return float(json.loads(whole.rpartition("\n")[2])["time_s"]) if whole else 0.0
