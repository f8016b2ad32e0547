import json

import pytest

from sfpp.runtime import UsageError
from sfpp.runtime.events import Event
from sfpp.runtime.model import SelfTestState
from sfpp.runtime.skeleton import SIDE_COLORS_BGR
from sfpp.runtime.viewer import Limits
from sfpp.runtime.viewer.drawing import ViewSetting
from sfpp.runtime.viewer.messages import PageView, hello, legend, message_from_page, status
from sfpp.runtime.viewer.store import Store
from tests.runtime.viewer.looking import CLASSES, POSE, model_shown, update

LIMITS = Limits(width=1000, largest_width=2000)


def read(**message):
    return message_from_page(json.dumps(message), LIMITS)


def test_messages_of_a_page_are_read():
    assert read(type="shown") == "shown"
    assert read(type="stop") == "stop"
    assert read(type="view") == PageView(ViewSetting(width=1000))
    whole = {"source": "rear", "view": "mask", "opacity": 30, "hidden": [2, 0, 2], "width": 640}
    setting = ViewSetting("rear", "mask", 30, frozenset({0, 2}), 640)
    assert read(type="view", **whole, playing=False, visible=False) == PageView(setting, playing=False, visible=False)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"opacity": 1000}, {"opacity": 100}),
        ({"opacity": -1}, {"opacity": 0}),
        ({"width": 10**9}, {"width": 2000}),
        ({"width": 0}, {"width": 160}),
    ],
)
def test_what_is_too_much_is_bounded(given, expected):
    setting = read(type="view", **given).setting
    assert {name: getattr(setting, name) for name in expected} == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '"shown"',
        "null",
        '{"type": "jump"}',
        '{"type": ["shown"]}',
        '{"type": "view", "source": 3}',
        '{"type": "view", "view": "everything"}',
        '{"type": "view", "view": []}',
        '{"type": "view", "hidden": [256]}',
        '{"type": "view", "hidden": [-1]}',
        '{"type": "view", "hidden": [true]}',
        '{"type": "view", "hidden": "1"}',
        '{"type": "view", "opacity": 0.5}',
        '{"type": "view", "opacity": NaN}',
        '{"type": "view", "width": "wide"}',
        '{"type": "view", "width": null}',
        '{"type": "view", "playing": 1}',
        "[" * 100_000,
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(UsageError):
        message_from_page(text, LIMITS)


def strictly(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_hello_tells_what_does_not_change():
    message = strictly(hello(model_shown(), LIMITS, client="me", can_stop=False))
    assert message["type"] == "hello"
    assert message["legend"][2] == {"name": "car", "color": "#0000c8"}
    assert (message["task"], message["title"], message["canStop"]) == ("segmentation", model_shown().description, False)
    assert (message["width"], message["largestWidth"]) == (1000, 2000)


def test_the_legend_of_a_pose_has_the_colors_of_the_skeletons():
    blue, green, red = SIDE_COLORS_BGR["left"]
    assert legend(POSE)[0] == ("Left side", f"#{red:02x}{green:02x}{blue:02x}")


def test_hello_tells_how_the_self_test_stands():
    model = model_shown(self_test=SelfTestState("failed", 0.51969, "51.97% of the labels"))
    message = strictly(hello(model, LIMITS, client="me", can_stop=True))
    assert message["selfTest"] == {"outcome": "failed", "agreement": 0.5197, "detail": "51.97% of the labels"}
    message = strictly(hello(model_shown(), LIMITS, client="me", can_stop=True))
    assert message["selfTest"] == {"outcome": "passed", "agreement": None, "detail": ""}


def test_status_is_json_whatever_the_numbers_are():
    store = Store(clock=lambda: 7.0)
    store.put(
        update(
            age_ms=float("nan"), labels_age_ms=80.0, frames_per_second=float("inf"), shares={"sky": 0.25, "sea": 1.0}
        )
    )
    store.add_event(Event("note", "front", "a detail", time_s=5.0))
    text = status(
        CLASSES,
        now_s=7.0,
        clients=1,
        fresh_s=10.0,
        sources=store.sources(),
        source="front",
        samples=store.samples("front", 0),
        events=store.events(0),
    )
    message = strictly(text)
    assert message["shares"] == [None, 0.25, None]
    assert message["sources"][0] == {
        "name": "front", "frames": 1, "fps": None, "idle": 0.0, "fresh": True, "width": 64, "height": 36,
    }  # fmt: skip
    assert message["events"] == [
        {"number": 0, "kind": "note", "source": "front", "detail": "a detail", "count": 0, "time_s": 5.0}
    ]
    assert message["samples"] == [
        {"time": 7.0, "age": None, "labelsAge": 80.0, "fps": None, "stages": {"decode": 2.0, "infer": 20.0}}
    ]
