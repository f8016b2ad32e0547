"""Live: every frame is shown at once, with the newest labels carried to it."""

import statistics
import threading
import time

import numpy as np
import pytest

from sfpp.runtime.contract import OutputSpec
from sfpp.runtime.errors import BackendError, UsageError
from sfpp.runtime.video.frame import Decoded, Source
from sfpp.runtime.video.pipeline import Pipeline
from tests.runtime.motion.moving import Network, pan, video


def camera(frames, *, name="camera", pause_s=1 / 30):
    """Delivers the frames by the clock."""

    def decoded():
        begun_s = time.monotonic()
        for index, frame in enumerate(frames):
            time.sleep(max(0.0, begun_s + index * pause_s - time.monotonic()))
            yield Decoded(frame, index * pause_s, f"{name}-{index}", taken_s=time.monotonic())

    return Source(decoded(), kind="camera", name=name, frames_per_second=None, live=True)


def slow(seconds):
    return lambda frames: time.sleep(seconds)


def test_every_frame_is_shown_at_once_while_the_network_takes_many():
    frames, network = pan(45, velocity=(0.5, 1.0)), Network(work=slow(0.25))
    with Pipeline(network.model, [camera(frames)]) as pipeline:
        assert pipeline.policy == "follow"
        answers = list(pipeline)
    assert len(answers) >= 36  # while the first frame waits for the network, some are dropped
    assert network.runs <= 8
    carried = [answer for answer in answers if answer.result.from_key]
    assert len(carried) >= len(answers) - 2
    assert statistics.median(answer.age_ms for answer in carried) < 100  # the network alone takes 250
    # Labels are of a frame that the network got one to two of its runs before.
    assert 0.2 < statistics.median(answer.result.from_key.seconds for answer in carried) < 0.8
    judge = Network().model
    fitting = [np.mean(answer.result.labels == judge(frames[answer.frame.index]).labels) for answer in carried]
    assert statistics.median(fitting) > 0.93


def test_labels_fit_the_frame_that_is_shown_and_not_the_one_that_the_network_saw():
    frames, network = pan(40, velocity=(0.0, 2.0)), Network(work=slow(0.2))
    with Pipeline(network.model, [camera(frames)]) as pipeline:
        answers = [answer for answer in pipeline if answer.result.from_key]
    judge = Network().model
    carried, stale = [], []
    for answer in answers:
        truth = judge(frames[answer.frame.index]).labels
        carried.append(np.mean(answer.result.labels == truth))
        stale.append(np.mean(judge(frames[answer.result.from_key.index]).labels == truth))
    assert 1 - statistics.mean(carried) < 0.6 * (1 - statistics.mean(stale))


def test_another_scene_waits_for_the_network():
    frames, network = (
        pan(20, seed=1, velocity=(0.5, 0.5)) + pan(20, seed=2, velocity=(0.5, 0.5)),
        Network(work=slow(0.1)),
    )
    with Pipeline(network.model, [camera(frames)]) as pipeline:
        answers = list(pipeline)
    for answer in answers:
        if answer.result.from_key is not None:
            assert (answer.frame.index >= 20) == (answer.result.from_key.index >= 20)


def test_several_cameras_get_the_network_in_turns():
    network = Network(work=slow(0.05))
    sources = [camera(pan(40, seed=seed), name=name) for seed, name in enumerate("abc")]
    keys = {name: set() for name in "abc"}
    with Pipeline(network.model, sources) as pipeline:
        for answer in pipeline:
            key = answer.result.from_key
            keys[answer.frame.source].add(answer.frame.index if key is None else key.index)
    counts = [len(each) for each in keys.values()]
    assert min(counts) >= 4
    assert max(counts) <= min(counts) + 2


def keys_of(answers, name):
    """Which frames of a camera its labels come from."""
    keys = [(each.frame, each.result.from_key) for each in answers if each.frame.source == name]
    return {frame.index if key is None else key.index for frame, key in keys}


def test_a_camera_before_which_nothing_moves_keeps_no_other_from_the_network():
    network = Network(work=slow(0.02))
    sources = [camera(pan(50, velocity=(0.5, 0.7)), name="moves"), camera(pan(1) * 50, name="still")]
    with Pipeline(network.model, sources, still=True) as pipeline:
        answers = list(pipeline)
    assert len(keys_of(answers, "still")) <= 2
    assert len(keys_of(answers, "moves")) >= 10


def test_a_camera_with_few_frames_keeps_no_other_from_the_network_and_gets_it_too():
    network = Network(work=slow(0.1))
    sources = [camera(pan(90), name="often"), camera(pan(6), name="seldom", pause_s=0.6)]
    with Pipeline(network.model, sources) as pipeline:
        answers = list(pipeline)
    assert len(keys_of(answers, "often")) >= 10
    assert len(keys_of(answers, "seldom")) >= 4


def test_at_most_every_nth_frame_goes_to_the_network():
    network = Network()
    with Pipeline(network.model, [camera(pan(40), pause_s=0.02)], key_every=10) as pipeline:
        answers = list(pipeline)
    assert 3 <= network.runs <= 5
    assert len(answers) > 30


def test_an_error_of_the_network_is_raised_where_answers_are_taken():
    network = Network()
    good = network.run

    def breaks(inputs):
        if network.runs > 2:
            raise BackendError("the card is gone")
        return good(inputs)

    network.run = breaks
    with (
        Pipeline(network.model, [camera(pan(60), pause_s=0.01)]) as pipeline,
        pytest.raises(BackendError, match="gone"),
    ):
        list(pipeline)
    assert not [each for each in threading.enumerate() if each.name.startswith("sfpp-")]


def test_stopping_ends_the_network_too():
    with Pipeline(Network(work=slow(0.05)).model, [camera(pan(200), pause_s=0.01)]) as pipeline:
        for count, _ in enumerate(pipeline):
            if count == 5:
                break
    assert not [each for each in threading.enumerate() if each.name.startswith("sfpp-")]


def test_where_carrying_does_not_keep_up_frames_wait_for_the_network_and_a_line_says_so(monkeypatch):
    events, network = [], Network(work=slow(0.02))
    answer = network.model.answer

    def slow_answer(*arguments):
        end_s = time.thread_time() + 0.04
        while time.thread_time() < end_s:
            pass
        return answer(*arguments)

    network.model.answer = slow_answer
    monkeypatch.setattr("sfpp.runtime.motion.following.usable_cores", lambda: 2)
    with Pipeline(network.model, [camera(pan(200), pause_s=0.02)], on_event=events.append) as pipeline:
        answers = list(pipeline)
    (said,) = [event.detail for event in events if event.kind == "note"]
    assert said.startswith("carrying labels takes ")
    assert said.endswith("so frames wait for the network; --policy follow carries all the same")
    assert all(each.result.from_key is None for each in answers[-3:])
    assert any(each.result.from_key for each in answers)


def test_files_and_models_whose_answers_cannot_be_carried():
    with pytest.raises(UsageError, match=r"follow is for cameras and streams, and clip is not live; .*key-every 4"):
        Pipeline(Network().model, [video(pan(2))], policy="follow")
    labels = Network(outputs=(OutputSpec("logits", "labels", 4),)).model
    with pytest.raises(UsageError, match="needs logits, and this model gives labels"):
        Pipeline(labels, [camera(pan(2))], policy="follow")
    with Pipeline(labels, [camera(pan(2))]) as pipeline:
        assert pipeline.policy == "freshest"
    with Pipeline(Network(batch=2).model, [camera(pan(2))]) as pipeline:
        assert pipeline.policy == "freshest"
    with Pipeline(Network().model, [camera(pan(2)), video(pan(2))]) as pipeline:
        assert pipeline.policy == "freshest"
