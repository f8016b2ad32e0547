"""What key frames would bring, measured beside a run."""

import dataclasses
from fractions import Fraction
from itertools import pairwise

import cv2
import numpy as np
import pytest

from sfpp.runtime import InputSpec, OutputSpec, Segmenter
from sfpp.runtime.backends import FunctionBackend
from sfpp.runtime.motion import trial as module
from sfpp.runtime.motion.trial import Trial, can_try
from sfpp.runtime.timing import StageTimer
from sfpp.runtime.video import Pipeline
from sfpp.runtime.video.frame import Decoded, Source
from tests.runtime.video.clips import CONTRACT

ROWS, COLUMNS = 96, 128
RATE = Fraction(15)


def scene(seed):
    """A large picture, (H, W, 3) uint8 BGR, of three colors that change every few pixels, with a texture."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.normal(size=(20, 30, 3)).astype(np.float32), (600, 400), interpolation=cv2.INTER_CUBIC)
    texture = cv2.GaussianBlur(rng.normal(size=(400, 600)).astype(np.float32), (0, 0), 1.5)
    colors = 100 + 60 * np.eye(3, dtype=np.float32)[coarse.argmax(axis=2)]
    return np.clip(colors + texture[..., None] * 25 / texture.std(), 0, 255).astype(np.uint8)


def panned(count, *, seed=0, speed=3, numbered=False):
    """Frames of a camera that moves right; a number is kept in the last pixel, where no flow sees it."""
    picture = scene(seed)
    frames = [picture[50 : 50 + ROWS, 20 + speed * i : 20 + speed * i + COLUMNS].copy() for i in range(count)]
    for index, frame in enumerate(frames):
        frame[-1, -1] = index if numbered else frame[-1, -1]
    return frames


def source(frames, *, rate=RATE):
    decoded = (Decoded(frame, float(index / rate)) for index, frame in enumerate(frames))
    return Source(decoded, kind="video", name="clip", frames_per_second=rate, count=len(frames))


def network(*, flickers=0.0, **contract):
    """Tells each pixel's strongest color; of a numbered frame a share of the pixels has any class."""

    def run(inputs):
        frame = inputs["frame"][0]
        values = frame.astype(np.float32) / 20
        rng = np.random.default_rng(int(frame[-1, -1, 0]))
        wild = rng.random(values.shape[:2]) < flickers
        values[wild] = 5 * np.eye(3, dtype=np.float32)[rng.integers(0, 3, int(wild.sum()))]
        return {"logits": values.transpose(2, 0, 1)[None]}

    fields = {"input": InputSpec("frame", ROWS, COLUMNS), "outputs": (OutputSpec("logits", "logits", 1),), **contract}
    return Segmenter(FunctionBackend(run, metadata={}), dataclasses.replace(CONTRACT, **fields))


def run(model, frames, **options):
    """Labels of each frame, and the run's timer."""
    with Pipeline(model, [source(frames)], **options) as pipeline:
        return [answer.result.labels for answer in pipeline], pipeline.timer


def tried(model, frames, **options):
    trial = Trial(model, **options)
    labels, _ = run(trial, frames)
    return trial, labels


def timer(*, network_ms=100.0, encode_ms=1.0, frames=30):
    """Of a run whose stages took so long, each in a thread of its own."""
    now_s = 0.0
    timer = StageTimer(clock=lambda: now_s)
    for index in range(frames):
        now_s = index * max(network_ms, encode_ms) / 1000
        timer.add("prepare", now_s, now_s)
        timer.add("infer", now_s, now_s + network_ms / 1000)
        timer.add("encode", now_s, now_s + encode_ms / 1000)
        now_s += max(network_ms, encode_ms) / 1000
        timer.frame_done()
    return timer


def test_it_says_how_many_pixels_a_run_with_key_frames_would_label_the_same():
    frames = panned(24, numbered=True)
    model = network(flickers=0.2)
    trial, labels = tried(model, frames)
    (window,) = trial._finished
    carried, _ = run(model, frames[4:13], key_every=4)
    same = [np.mean(one == other) for one, other in zip(carried[1:], labels[5:13], strict=True)]
    # A cell is a pixel here, and so it is the same labels; only resampling rounds in another order.
    assert window.same == pytest.approx(same, abs=2e-3)
    assert 0.5 < np.mean(same) < 0.95


def test_it_says_how_alike_the_labels_of_neighboring_frames_are():
    frames = panned(24, speed=0, numbered=True)
    trial, labels = tried(network(flickers=0.2), frames)
    (window,) = trial._finished
    alike = [np.mean(one == other) for one, other in pairwise(labels[4:13])]
    assert window.steady == pytest.approx(alike, abs=0.01)
    assert 0.6 < np.mean(alike) < 0.9


def test_motion_is_no_unrest():
    trial, labels = tried(network(), panned(24))
    assert np.mean(labels[5] == labels[4]) < 0.9
    assert np.mean(trial._finished[0].steady) > 0.93


def test_answers_are_those_of_the_model():
    frames = panned(24)
    model = network()
    _, labels = tried(model, frames, expected=24)
    for one, other in zip(labels, run(model, frames)[0], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("expected", "windows"), [(None, 1), (99, 1), (100, 2)])
def test_the_middle_is_tried_too_where_it_is_known(expected, windows):
    trial, _ = tried(network(), panned(60, speed=1), expected=expected)
    assert len(trial._finished) == windows
    assert trial._window is None


def test_a_line_says_what_it_would_bring():
    trial, _ = tried(network(), panned(24))
    line = trial.advice(timer(network_ms=400))
    assert line.startswith("--key-every 4 would run about ")
    assert "x as fast here (the network takes 400 ms a frame, carrying " in line
    assert line.endswith(f"agree with those of the frame before on {np.mean(trial._finished[0].steady):.1%}")


@pytest.mark.parametrize(
    "frames",
    [
        [*panned(8), *panned(16, seed=1)],  # a cut
        [frame for seed in range(24) for frame in panned(1, seed=seed)],  # pictures that have nothing in common
        panned(19),  # a run that is over at once
    ],
)
def test_nothing_is_said_where_nothing_can_be_told(frames):
    assert tried(network(), frames)[0].advice(timer(network_ms=400)) is None


@pytest.mark.parametrize("cut", [6, 8])  # between key frames, and at one
def test_a_cut_ends_one_window_only(cut):
    frames = [*panned(cut), *panned(100 - cut, seed=1, speed=1)]
    assert tried(network(), frames)[0]._finished == []
    assert len(tried(network(), frames, expected=100)[0]._finished) == 1


def test_nothing_is_said_of_frames_that_lie_far_apart():
    trial = Trial(network())
    with Pipeline(trial, [source(panned(24), rate=Fraction(1))]) as pipeline:
        assert len(list(pipeline)) == 24
    assert trial._finished == []


@pytest.mark.parametrize(
    ("same", "steady", "is_said"),
    [(0.97, 0.98, True), (0.96, 0.98, False), (0.99, 0.9, True), (0.79, 0.79, False)],
)
def test_nothing_is_said_where_labels_would_get_worse(same, steady, is_said):
    trial, _ = tried(network(), panned(24))
    trial._finished[0].same[:], trial._finished[0].steady[:] = [same], [steady]
    assert (trial.advice(timer(network_ms=400)) is not None) == is_said


@pytest.mark.parametrize(
    ("network_ms", "encode_ms", "carry_ms", "gain"),
    [
        (100.0, 1.0, 5.0, 100 / 30),  # a quarter of the network's time, and carrying
        (100.0, 50.0, 5.0, 2.0),  # encoding takes what it takes
        (20.0, 60.0, 5.0, 1.0),
        (8.0, 1.0, 10.0, 8 / 12),
    ],
)
def test_the_gain_is_of_the_whole_run(network_ms, encode_ms, carry_ms, gain):
    measured = timer(network_ms=network_ms, encode_ms=encode_ms)
    assert module._gain(measured, network_ms, carry_ms) == pytest.approx(gain)
    trial, _ = tried(network(), panned(24))
    trial._finished[0] = trial._finished[0]._replace(carry_ms=carry_ms)
    assert (trial.advice(measured) is None) == (gain < 1.3)


def test_a_trial_that_fails_ends_alone(monkeypatch):
    def failing(self, frame):
        raise MemoryError

    monkeypatch.setattr(module.Watcher, "see", failing)
    trial, labels = tried(network(), panned(40), expected=40)
    assert len(labels) == 40
    assert trial.advice(timer(network_ms=400)) is None


def test_with_key_frames_nothing_is_tried():
    trial = Trial(network())
    assert len(run(trial, panned(24), key_every=2)[0]) == 24
    assert trial._frames == 0


def test_what_gives_no_logits_is_not_tried():
    assert can_try(network(), None)
    assert can_try(network(), 20)
    assert not can_try(network(), 19)
    assert not can_try(network(multi_label=True, threshold=0.5), 20)
    assert not can_try(network(outputs=(OutputSpec("labels", "labels", 1),)), 20)
