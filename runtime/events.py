"""What happens to a source or a sink while a pipeline runs: one typed event, and one line for a log."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

EventKind = Literal["opened", "lost", "back", "gave-up", "dropped", "size-changed", "ended", "sink-failed", "note"]


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        kind: ``opened``, ``lost`` (a live source delivers nothing, and is tried again), ``back``, ``gave-up``,
            ``dropped`` (frames that were too old by the time the model was free), ``size-changed``, ``ended``,
            ``sink-failed``, or a ``note``.
        source: the name of the source or sink, without credentials.
        detail: what happened, for people; without credentials too.
        count: of what was dropped or lost, where that can be counted.
        time_s: when, in seconds since 1970.
    """

    kind: EventKind
    source: str
    detail: str
    count: int = 0
    time_s: float = field(default_factory=time.time)

    def line(self) -> str:
        """Return the event as one line for a log."""
        return f"{self.source}: {self.kind}: {' '.join(self.detail.split())}"


EventHandler = Callable[[Event], object]


def ignore(event: Event) -> None:
    """Take an event and do nothing."""
