"""Counters, gauges and quantiles in the text form that Prometheus reads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from sfpp.runtime.viewer.store import Quantiles, SourceFacts, Store

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

    def add_summary(self, quantiles: Quantiles, **labels: str) -> None:
        for quantile, value_s in quantiles.values_s.items():
            self.add(value_s, **labels, quantile=repr(quantile))
        self.add(quantiles.sum_s, suffix="_sum", **labels)
        self.add(quantiles.count, suffix="_count", **labels)

    def lines(self) -> Iterator[str]:
        if self.samples:
            yield f"# HELP {self.name} {self.about}"
            yield f"# TYPE {self.name} {self.kind}"
            yield from self.samples


def metrics_text(store: Store, *, clients: int, pictures: int) -> str:
    """Return all metrics.

    Args:
        store: what was shown.
        clients: how many pages look.
        pictures: how many pictures were drawn for them.
    """
    facts = store.sources()
    families = [
        *_frame_families(facts, store.dropped()),
        *_latency_families(facts, store),
        *_content_families(facts),
        *_viewer_families(store.event_counts(), clients=clients, pictures=pictures),
    ]
    return "".join(f"{line}\n" for family in families for line in family.lines())


def _frame_families(facts: Iterable[SourceFacts], dropped: Mapping[str, int]) -> list[_Family]:
    frames = _Family("sfpp_frames_total", "counter", "Frames that went through the model.")
    lost = _Family("sfpp_frames_dropped_total", "counter", "Frames that were too old when the model was free.")
    rate = _Family("sfpp_frames_per_second", "gauge", "Frames per second that went through the model.")
    idle = _Family("sfpp_seconds_since_last_frame", "gauge", "Seconds since the last frame was done.")
    # A source may drop frames before the first one of it is done.
    names = dict.fromkeys(each.name for each in facts)
    for each in facts:
        frames.add(each.frames, source=each.name)
        rate.add(each.newest.frames_per_second, source=each.name)
        idle.add(each.idle_s, source=each.name)
    for name in names | dict.fromkeys(dropped):
        # A counter that begins at 0 lets the first drop be seen as a rise.
        lost.add(dropped.get(name, 0), source=name)
    return [frames, lost, rate, idle]


def _latency_families(facts: Iterable[SourceFacts], store: Store) -> list[_Family]:
    stage_family = _Family("sfpp_stage_latency_seconds", "summary", "Duration of a stage for one frame.")
    age_family = _Family(
        "sfpp_frame_age_seconds", "summary", "Time from a frame's coming until its answer; quantiles of the latest."
    )
    for each in facts:
        latencies = store.latencies(each.name)
        if latencies is None:
            continue
        for stage, quantiles in latencies.stages.items():
            stage_family.add_summary(quantiles, source=each.name, stage=stage)
        if latencies.age.count:
            age_family.add_summary(latencies.age, source=each.name)
    return [stage_family, age_family]


def _content_families(facts: Iterable[SourceFacts]) -> list[_Family]:
    shares = _Family("sfpp_class_share_ratio", "gauge", "Share of the newest frame's pixels that a class covers, 0..1.")
    people = _Family("sfpp_people", "gauge", "People in the newest frame.")
    for each in facts:
        for name, share in each.newest.shares.items():
            shares.add(share, source=each.name, class_=name)
        people.add(each.newest.people, source=each.name)
    return [shares, people]


def _viewer_families(event_counts: Mapping[tuple[str, str], int], *, clients: int, pictures: int) -> list[_Family]:
    events = _Family("sfpp_events_total", "counter", "What happened to sources and sinks, by kind.")
    for (source, kind), count in event_counts.items():
        events.add(count, source=source, kind=kind)
    looking = _Family("sfpp_viewer_clients", "gauge", "Pages that look.")
    looking.add(clients)
    drawn = _Family("sfpp_viewer_pictures_total", "counter", "Pictures drawn for pages; equal views share them.")
    drawn.add(pictures)
    return [events, looking, drawn]
