"""What a command prints on stderr while it works: lines, and a bar with the time left for what takes a while."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

_PATIENCE_S = 2.0  # what is over sooner needs no bar


class Bars:
    """Shows one bar at a time on stderr; a context manager that closes the last one.

    Args:
        command: begins each line; none by default.
        unit: of the bar's steps.
    """

    def __init__(self, command: str = "", *, unit: str = "it") -> None:
        self._prefix = f"{command}: " if command else ""
        self._unit = unit
        self._bar: Any = None
        self._step = ""

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._close()
        print(f"{self._prefix}{line}", file=sys.stderr, flush=True)

    def __call__(self, step: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` parts of a step are done; without tqdm, nothing is shown."""
        try:
            from tqdm import tqdm
        except ImportError:
            return
        if self._bar is None or step != self._step:
            self._close()
            self._step = step
            # Not on a terminal (disable=None) there is no bar.
            self._bar = tqdm(
                total=total, desc=f"  {step}", unit=self._unit, disable=None, delay=_PATIENCE_S, leave=False
            )
        self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()
