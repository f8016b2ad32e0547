"""Progress of a calibration on a terminal: a line for each step, and a bar with the time left for the long ones."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any


class Bars:
    """Shows one bar at a time on stderr; a context manager that closes the last one."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._step = ""

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._close()
        print(line, file=sys.stderr, flush=True)

    def __call__(self, step: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` parts of a step are behind us."""
        from tqdm import tqdm

        if self._bar is None or step != self._step:
            self._close()
            self._step = step
            # Where nobody looks (disable=None), and for what takes less than two seconds, there is no bar.
            self._bar = tqdm(total=total, desc=f"  {step}", disable=None, delay=2, leave=False)
        self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()
