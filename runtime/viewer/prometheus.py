"""Counters, gauges and quantiles in the text form that Prometheus reads."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from sfpp.runtime.viewer.store import LatencyWindow, Store

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


@dataclass
class _Family:
    """A metric and its samples; ``add`` returns nothing where there is no value, since no sample is better than NaN."""

    name: str
    kind: Literal["counter", "gauge", "summary"]
    about: str
    samples: list[str] = field(default_factory=list)

    def add(self, value: float | None, *, suffix: str = "", **labels: str) -> None:
        if value is None or not math.isfinite(value):
            return
        pairs = ",".join(f'{name.rstrip("_")}="{text.translate(_ESCAPES)}"' for name, text in labels.items())
        # NumPy's numbers would say what type they are.
        number = value if isinstance(value, int) else float(value)
        self.samples.append(f"{self.name}{suffix}{f'{{{pairs}}}' if pairs else ''} {number!r}")

    def add_summary(self, window: LatencyWindow, **labels: str) -> None:
        for quantile, value_ms in window.quantiles_ms().items():
            self.add(value_ms / 1000, **labels, quantile=repr(quantile))
        self.add(window.sum_ms / 1000, suffix="_sum", **labels)
        self.add(window.count, suffix="_count", **labels)

    def lines(self) -> Iterator[str]:
        if self.samples:
            yield f"# HELP {self.name} {self.about}"
            yield f"# TYPE {self.name} {self.kind}"
            yield from self.samples


def metrics_text(store: Store, *, clients: int, drawn: int, met: Mapping[str, int]) -> str:
    """Return all metrics.

    Args:
        store: what was shown.
        clients: how many pages look.
        drawn: how many views were drawn for them.
        met: how often each limit of the page was met, by its name.
    """
    frames = _Family("sfpp_frames_total", "counter", "Frames that went through the model.")
    lost = _Family("sfpp_frames_dropped_total", "counter", "Frames that were too old when the model was free.")
    rate = _Family("sfpp_frames_per_second", "gauge", "Frames per second that went through the model.")
    idle = _Family("sfpp_seconds_since_last_frame", "gauge", "Seconds since the last frame was done.")
    stages = _Family("sfpp_stage_latency_seconds", "summary", "Duration of a stage for one frame.")
    ages = _Family(
        "sfpp_frame_age_seconds", "summary", "Time from a frame's coming until its answer; quantiles of the latest."
    )
    labels_ages = _Family(
        "sfpp_labels_age_seconds",
        "summary",
        "Time from the coming of the frame that the network saw until its labels are shown; quantiles of the latest.",
    )
    shares = _Family("sfpp_class_share_ratio", "gauge", "Share of the newest frame's pixels that a class covers, 0..1.")
    people = _Family("sfpp_people", "gauge", "People in the newest frame.")
    events = _Family("sfpp_events_total", "counter", "What happened to sources and sinks, by kind.")
    looking = _Family("sfpp_viewer_clients", "gauge", "Pages that look.")
    views = _Family("sfpp_viewer_pictures_total", "counter", "Views of frames drawn for pages; equal ones are shared.")
    limits = _Family("sfpp_viewer_limits_met_total", "counter", "Connections and pages that had to go, by the limit.")

    facts, dropped = store.sources(), store.dropped()
    for each in facts:
        name = each.name
        frames.add(each.frames, source=name)
        rate.add(each.newest.frames_per_second, source=name)
        idle.add(each.idle_s, source=name)
        people.add(each.newest.people, source=name)
        for class_name, share in each.newest.shares.items():
            shares.add(share, source=name, class_=class_name)
        windows, age, labels_age = store.latencies(name)
        for stage, window in windows.items():
            stages.add_summary(window, source=name, stage=stage)
        if age.count:
            ages.add_summary(age, source=name)
        if labels_age.count:
            labels_ages.add_summary(labels_age, source=name)
    # A source may drop frames before the first one of it is done; and a counter that begins at 0 lets the first drop be
    # seen as a rise.
    for name in dict.fromkeys([*(each.name for each in facts), *dropped]):
        lost.add(dropped.get(name, 0), source=name)
    for (name, kind), count in store.event_counts().items():
        events.add(count, source=name, kind=kind)
    looking.add(clients)
    views.add(drawn)
    for name, count in met.items():
        limits.add(count, limit=name.lower())
    families = (frames, lost, rate, idle, stages, ages, labels_ages, shares, people, events, looking, views, limits)
    return "".join(f"{line}\n" for family in families for line in family.lines())
