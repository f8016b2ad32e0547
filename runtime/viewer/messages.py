"""What the server and a page say to each other, as JSON; a frame is a short JSON header and a JPEG in one message."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from sfpp.runtime.contract import ModelContract
from sfpp.runtime.errors import UsageError
from sfpp.runtime.events import Event
from sfpp.runtime.skeleton import SIDE_COLORS_BGR
from sfpp.runtime.typed_json import json_from_text
from sfpp.runtime.viewer.drawing import VIEWS, ViewSetting
from sfpp.runtime.viewer.store import KEPT_S, Sample, SourceFacts
from sfpp.runtime.viewer.update import Limits, ViewerUpdate

if TYPE_CHECKING:
    from sfpp.runtime.model import OpenedModel

# What a page may send at once, in bytes: 256 classes switched off and a long name of a source.
LARGEST_MESSAGE = 8192

_SMALLEST_WIDTH = 160
_HEADER_LENGTH = struct.Struct(">I")
_SIDE_NAMES = {"left": "Left side", "right": "Right side", "middle": "Middle"}


@dataclass(frozen=True)
class PageView:
    """What a page wants: a view, and whether frames shall go on (``playing``) or come at all (``visible``)."""

    setting: ViewSetting = field(default_factory=ViewSetting)
    playing: bool = True
    visible: bool = True


def hello(model: OpenedModel[Any], limits: Limits, *, client: str, can_stop: bool) -> str:
    """Return the first message to a page: what does not change while it looks, and whether it may end the run."""
    contract, tested = model.contract, model.self_test
    return _json(
        type="hello",
        client=client,
        task=contract.task,
        title=model.description,
        legend=[{"name": name, "color": color} for name, color in legend(contract)],
        canStop=can_stop,
        selfTest={**vars(tested), "agreement": _number(tested.agreement, digits=4)},
        width=limits.width,
        largestWidth=limits.largest_width,
        keptSeconds=KEPT_S,
    )


def status(
    classes: Sequence[str],
    *,
    now_s: float,
    clients: int,
    fresh_s: float,
    sources: Sequence[SourceFacts],
    source: str,
    samples: Sequence[Sample],
    events: Sequence[tuple[int, Event]],
) -> str:
    """Return how things stand, for one page.

    Args:
        classes: their names.
        now_s: the time on the clock of the samples.
        clients: how many pages look.
        fresh_s: a source that is idle for longer has stopped delivering.
        sources: all of them.
        source: the one that the page looks at.
        samples: of that source, those that the page does not have.
        events: those that the page does not have, with their numbers.
    """
    looked_at = next((each.newest for each in sources if each.name == source), None)
    return _json(
        type="status",
        now=_number(now_s),
        clients=clients,
        source=source,
        sources=[_source(each, fresh_s) for each in sources],
        shares=[_number(looked_at.shares.get(name), digits=4) for name in classes] if looked_at else [],
        people=looked_at.people if looked_at else None,
        samples=[_sample(each) for each in samples],
        events=[{**vars(each), "number": number, "time_s": _number(each.time_s)} for number, each in events],
    )


def legend(contract: ModelContract) -> list[tuple[str, str]]:
    """Return names and colors as ``#rrggbb``: of the classes, or of the sides of a skeleton."""
    if contract.task == "pose":
        return [(_SIDE_NAMES[side], _hex(bgr[::-1])) for side, bgr in SIDE_COLORS_BGR.items()]
    return [(name, _hex(rgb)) for name, rgb in zip(contract.classes, contract.palette, strict=True)]


def _hex(rgb: Sequence[int]) -> str:
    return "#" + "".join(f"{value:02x}" for value in rgb)


def image_message(update: ViewerUpdate, setting: ViewSetting, jpeg: bytes) -> bytes:
    """Return a view of a frame as a page takes it: the header's length as four bytes, the header as JSON, the JPEG."""
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


def message_from_page(text: str, limits: Limits) -> PageView | Literal["shown", "stop"]:
    """Read what a page has sent: what it wants, that it has shown the last frame, or that the run shall end.

    Raises:
        UsageError: it is nothing that our page would send.
    """
    data = json_from_text(text, where=f"what a page sent, {len(text)} characters,", raising=UsageError)
    # Compared one by one: whatever JSON has put there, a list as well, need not fit into a set or a dictionary.
    kind = data.get("type") if isinstance(data, dict) else None
    if kind == "view":
        return PageView(setting_from(data, limits), _flag(data, "playing"), _flag(data, "visible"))
    if kind == "shown":
        return "shown"
    if kind == "stop":
        return "stop"
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


def _sample(sample: Sample) -> dict[str, Any]:
    return {
        "time": _number(sample.time_s),
        "age": _number(sample.age_ms),
        "labelsAge": _number(sample.labels_age_ms),
        "fps": _number(sample.frames_per_second),
        "stages": {stage: _number(duration_ms) for stage, duration_ms in sample.stages_ms.items()},
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
