"""ONNX Runtime's own profile of a session: a trace file of events, read by type of operator."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any


class SessionProfile:
    """The profile of the session that is made with these options, until it is read once."""

    def __init__(self, session_options: Any) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="sfpp-profile-"))
        self._times_ms: dict[str, float] | None = None
        session_options.enable_profiling = True
        session_options.profile_file_prefix = str(self._folder / "trace")

    def times_ms(self, session: Any) -> dict[str, float]:
        """Return the mean milliseconds a run by type of operator, the largest first.

        ONNX Runtime writes its file only when it ends measuring, and cannot begin again: a second call returns what the
        first one did.
        """
        if self._times_ms is None:
            try:
                events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
            finally:
                self.discard()
            self._times_ms = times_from_events(events)
        return dict(self._times_ms)

    def discard(self) -> None:
        """Remove the files."""
        shutil.rmtree(self._folder, ignore_errors=True)


def times_from_events(events: list[dict[str, Any]]) -> dict[str, float]:
    """Return mean milliseconds a run by type of operator from the events of a trace, the largest first.

    An event has ``cat`` "Session" or "Node", ``name`` and ``dur`` in microseconds; loading the model is an event too,
    and only those named ..._kernel_time are an operator's work.
    """
    runs = sum(event.get("cat") == "Session" and event["name"] == "model_run" for event in events)
    times_us: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times_us[event["args"]["op_name"]] += event["dur"]
    return {name: time_us / 1000 / max(runs, 1) for name, time_us in times_us.most_common()}
