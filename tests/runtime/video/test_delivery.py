"""Answers on their way to sinks and to the page."""

import contextlib
import time
from dataclasses import replace

import numpy as np
import pytest

from sfpp.runtime.model import SelfTestState
from sfpp.runtime.motion.options import FromKey
from sfpp.runtime.segmentation import Segmentation
from sfpp.runtime.timing import RateMeter
from sfpp.runtime.video import delivery as module
from sfpp.runtime.video.delivery import Delivery, SourceSinks
from sfpp.runtime.video.pipeline import Answer
from sfpp.runtime.video.sinks.records import frame_record
from sfpp.runtime.video.sinks.thread import SinkThread
from tests.runtime.video.clips import CONTRACT, frame, picture


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self):
        self.written, self.records = [], []

    def write(self, given, image):
        self.written.append((given.source, given.index, image))

    def write_record(self, record):
        self.records.append((record["source"], record["frame"]))

    @contextlib.contextmanager
    def opened(self):
        yield self


class Page:
    """Stands in for the viewer."""

    def __init__(self):
        self.updates = []

    def show(self, update):
        self.updates.append(update)


def answer(index, source="street"):
    labels = np.full((48, 64), index % len(CONTRACT.classes), np.uint8)
    found = Segmentation(labels, CONTRACT.classes, CONTRACT.palette)
    return Answer(replace(frame(index), source=source, image_bgr=picture(index)), found, 12.0, {"infer": 10.0})


def threads(*sinks):
    return [SinkThread(sink.opened(), name="kept", policy="every-frame") for sink in sinks]


@pytest.fixture
def painted(monkeypatch):
    """What was drawn: the first label of each."""
    drawn = []

    def draw(self, frame_bgr, **style):
        drawn.append((int(self.labels[0, 0]), style))
        time.sleep(0.01)  # the others ask meanwhile
        return frame_bgr + 1

    monkeypatch.setattr(Segmentation, "draw", draw)
    return drawn


@pytest.mark.parametrize("ahead", [False, True])
def test_a_picture_is_drawn_once_however_many_want_it(painted, ahead):
    sinks = [Kept(), Kept(), Kept()]
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(each) for each in threads(*sinks)]
        drawing = stack.enter_context(threads(Kept())[0]) if ahead else None
        overlays = {f"encode {n}": thread for n, thread in enumerate(opened)}
        delivery = Delivery({"street": SourceSinks(overlays, drawing=drawing)}, style={"alpha": 0.25})
        for index in range(3):
            delivery.take(answer(index))
    assert painted == [(index, {"alpha": 0.25}) for index in range(3)]
    for sink in sinks:
        assert [index for _, index, _ in sink.written] == [0, 1, 2]
        for _, index, image in sink.written:
            np.testing.assert_array_equal(image, picture(index) + 1)


def test_nothing_is_drawn_for_masks_and_lines(painted):
    masks, lines = Kept(), Kept()
    with contextlib.ExitStack() as stack:
        labels, records = (stack.enter_context(each) for each in threads(masks, lines))
        delivery = Delivery({"street": SourceSinks(masks={"masks": labels}, records={"json": records})})
        delivery.take(answer(1))
        delivery.take(answer(5, source="elsewhere"))  # which goes nowhere
    assert painted == []
    ((_, _, values),) = masks.written
    np.testing.assert_array_equal(values, answer(1).result.labels)
    assert lines.records == [("street", 1)]


def test_records_say_how_the_models_self_test_stands():
    for state, expected in (
        (None, {}),
        (SelfTestState("passed"), {"self_test": "passed"}),
        (SelfTestState("failed", 0.5), {"self_test": "failed", "self_test_agreement": 0.5}),
    ):
        record = frame_record(answer(1).frame, answer(1).result, self_test=state)
        assert {name: value for name, value in record.items() if name.startswith("self_test")} == expected


def test_the_page_learns_the_rate_of_each_source(monkeypatch):
    now_s = 100.0
    monkeypatch.setattr(module, "RateMeter", lambda: RateMeter(clock=lambda: now_s))
    page = Page()
    delivery = Delivery(viewer=page)
    for index in range(5):
        now_s = 100.0 + index
        for source in ("left", "right") if index % 2 == 0 else ("left",):
            delivery.take(answer(index, source))
    rates = {update.source: update.frames_per_second for update in page.updates}
    assert rates == {"left": pytest.approx(1), "right": pytest.approx(0.5)}
    assert page.updates[0].frames_per_second is None
    assert page.updates[-1].stages_ms == {"infer": 10.0}
    assert page.updates[-1].age_ms == page.updates[-1].labels_age_ms == 12.0
    assert sum(page.updates[-1].shares.values()) == pytest.approx(1)


def test_carried_labels_are_as_old_as_the_frame_that_the_network_saw():
    one, page = answer(1), Page()
    carried = replace(one, result=replace(one.result, from_key=FromKey(0, 0.25, 0.9)))
    assert one.labels_age_ms == one.age_ms == carried.age_ms == 12.0
    assert carried.labels_age_ms == 262.0
    Delivery(viewer=page).take(carried)
    assert (page.updates[0].age_ms, page.updates[0].labels_age_ms) == (12.0, 262.0)


def test_a_multi_label_answer_is_a_mask_of_each_class():
    one = answer(0)
    masks = np.zeros((len(CONTRACT.classes), 48, 64), np.uint8)
    masks[1] = 1
    names = []

    class Named(Kept):
        def write(self, given, image):
            names.append((given.name, set(np.unique(image))))

    sink = Named()
    with contextlib.ExitStack() as stack:
        (thread,) = threads(sink)
        stack.enter_context(thread)
        delivery = Delivery({"street": SourceSinks(masks={"masks": thread})})
        delivery.take(replace(one, result=replace(one.result, masks=masks)))
    first = one.frame.name
    assert names == [(f"{first}-{name}", {255 * (index == 1)}) for index, name in enumerate(CONTRACT.classes)]
