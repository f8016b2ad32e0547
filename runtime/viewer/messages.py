"""What the server and a page say to each other, as JSON; a picture is a short JSON header and a JPEG in one message."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from sfpp.runtime.errors import UsageError
from sfpp.runtime.model import SelfTestState
from sfpp.runtime.viewer.drawing import VIEWS, ViewSetting
from sfpp.runtime.viewer.store import KEPT_S, NumberedEvent, Sample, SourceFacts
from sfpp.runtime.viewer.update import Control, ControlAction, Limits, Scene, ViewerUpdate

# What a page may send at once, in bytes: 256 classes switched off and a long name of a source.
LARGEST_MESSAGE = 8192

_SMALLEST_WIDTH = 160
_HEADER_LENGTH = struct.Struct(">I")


@dataclass(frozen=True)
class PageView:
    """What a page wants: a view, and whether pictures shall go on (``playing``) or come at all (``visible``)."""

    setting: ViewSetting = field(default_factory=ViewSetting)
    playing: bool = True
    visible: bool = True


@dataclass(frozen=True)
class Acknowledgment:
    """The page has shown its last picture."""


def hello(scene: Scene, limits: Limits, *, client: str) -> str:
    """Return the first message to a page: what does not change while it looks."""
    legend = [{"name": name, "color": color} for name, color in scene.legend()]
    return _json(
        type="hello",
        client=client,
        task=scene.task,
        title=scene.title,
        legend=legend,
        controls=scene.controls,
        selfTest=None if scene.self_test is None else _self_test(scene.self_test),
        width=limits.width,
        largestWidth=limits.largest_width,
        keptSeconds=KEPT_S,
    )


@dataclass(frozen=True)
class Status:
    """How things stand, for one page.

    Attributes:
        now_s: the time on the clock of the samples.
        clients: how many pages look.
        fresh_s: a source that is idle for longer has stopped delivering.
        sources: all of them.
        source: the one that the page looks at.
        samples: of that source, those that the page does not have.
        events: those that the page does not have.
    """

    now_s: float
    clients: int
    fresh_s: float
    sources: Sequence[SourceFacts]
    source: str
    samples: Sequence[Sample]
    events: Sequence[NumberedEvent]

    def message(self, scene: Scene) -> str:
        """Return the message to the page."""
        looked_at = next((each for each in self.sources if each.name == self.source), None)
        return _json(
            type="status",
            now=_number(self.now_s),
            clients=self.clients,
            source=self.source,
            sources=[_source(each, self.fresh_s) for each in self.sources],
            shares=[] if looked_at is None else _shares(looked_at.newest, scene),
            people=None if looked_at is None else looked_at.newest.people,
            samples=[_sample(each) for each in self.samples],
            events=[_event(each) for each in self.events],
        )


def picture_message(update: ViewerUpdate, setting: ViewSetting, jpeg: bytes) -> bytes:
    """Return a picture as a page takes it: the header's length as four bytes, the header as JSON, the JPEG."""
    height, width = update.size_hw
    header = _json(
        source=update.source,
        index=update.index,
        width=width,
        height=height,
        view=setting.view,
        age=_number(update.age_ms),
        people=update.people,
    ).encode()
    return _HEADER_LENGTH.pack(len(header)) + header + jpeg


def message_from_page(text: str, limits: Limits) -> PageView | Acknowledgment | Control:
    """Read what a page has sent.

    Raises:
        UsageError: it is nothing that our page would send.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"a page sent {len(text)} characters that are no JSON") from error
    # Compared one by one: whatever JSON has put there, a list as well, need not fit into a set or a dictionary.
    kind = data.get("type") if isinstance(data, dict) else None
    if kind == "shown":
        return Acknowledgment()
    if kind == "view":
        return PageView(setting_from(data, limits), _flag(data, "playing"), _flag(data, "visible"))
    for action in get_args(ControlAction):
        if kind == action:
            return Control(action)
    raise UsageError("a page sent a message of no known type")


def setting_from(data: Mapping[str, Any], limits: Limits) -> ViewSetting:
    """Return a view setting from its parts; what is missing has its default.

    Raises:
        UsageError: a part has another type, or a value that cannot be.
    """
    source, view, hidden = data.get("source", ""), data.get("view", "overlay"), data.get("hidden", [])
    if not isinstance(source, str) or view not in VIEWS:
        raise UsageError(f"expected a source's name, and one of the views {', '.join(VIEWS)}")
    if not isinstance(hidden, list) or not all(_is_integer(each) and 0 <= each <= 255 for each in hidden):
        raise UsageError("expected the hidden classes as a list of numbers 0..255")
    opacity, width = data.get("opacity", 50), data.get("width", limits.width)
    if not _is_integer(opacity) or not _is_integer(width):
        raise UsageError("expected opacity (percent) and width (pixels) as whole numbers")
    return ViewSetting(
        source=source,
        view=view,
        opacity=min(max(opacity, 0), 100),
        hidden=frozenset(hidden),
        width=min(max(width, _SMALLEST_WIDTH), limits.largest_width),
    )


def _self_test(state: SelfTestState) -> dict[str, Any]:
    return {"outcome": state.outcome, "agreement": _number(state.agreement, digits=4), "detail": state.detail}


def _source(facts: SourceFacts, fresh_s: float) -> dict[str, Any]:
    height, width = facts.newest.size_hw
    return {
        "name": facts.name,
        "frames": facts.frames,
        "fps": _number(facts.newest.frames_per_second),
        "idle": _number(facts.idle_s),
        "fresh": facts.idle_s <= fresh_s,
        "width": width,
        "height": height,
    }


def _shares(update: ViewerUpdate, scene: Scene) -> list[float | None]:
    """Return each class's share in the order of the legend."""
    return [_number(update.shares.get(name), digits=4) for name in scene.classes]


def _sample(sample: Sample) -> dict[str, Any]:
    return {
        "time": _number(sample.time_s),
        "age": _number(sample.age_ms),
        "fps": _number(sample.frames_per_second),
        "stages": {stage: _number(duration_ms) for stage, duration_ms in sample.stages_ms.items()},
    }


def _event(numbered: NumberedEvent) -> dict[str, Any]:
    event = numbered.event
    return {
        "number": numbered.number,
        "time": _number(event.time_s),
        "kind": event.kind,
        "source": event.source,
        "detail": event.detail,
        "count": event.count,
    }


def _number(value: float | None, *, digits: int = 3) -> float | None:
    """Return a number as JSON has it: without needless digits, and nothing where it is not finite."""
    return round(float(value), digits) if value is not None and math.isfinite(value) else None


def _flag(data: Mapping[str, Any], name: str) -> bool:
    value = data.get(name, True)
    if not isinstance(value, bool):
        raise UsageError(f"expected true or false for {name}")
    return value


def _is_integer(value: object) -> bool:
    # To Python, true is the integer 1.
    return isinstance(value, int) and not isinstance(value, bool)


def _json(**parts: object) -> str:
    # A single NaN would make a browser refuse the whole message, so it must not get this far.
    return json.dumps(parts, separators=(",", ":"), allow_nan=False)
