"""Runs in which the network does not see every frame, through the pipeline."""

import threading
import time

import numpy as np
import pytest

from sfpp.runtime.contract import OutputSpec
from sfpp.runtime.errors import BackendError, UsageError
from sfpp.runtime.motion.options import MIX
from sfpp.runtime.video.frame import Decoded, Source
from sfpp.runtime.video.pipeline import Pipeline
from tests.runtime.motion.moving import COLUMNS, ROWS, STRIDE, Network, pan, scene, video, window


def run(network, frames, **options):
    """Return the answers of a run over one clip, in order."""
    source = video(frames, **{name: options.pop(name) for name in ("times", "kind", "rate") if name in options})
    with Pipeline(network.model, [source], policy="every-frame", **options) as pipeline:
        answers = list(pipeline)
    assert [answer.frame.index for answer in answers] == list(range(len(frames)))
    return answers


def agreement(answers, frames, network):
    """How many of the labels are those that the network itself gives each frame, for each frame."""
    return [
        np.mean(answer.result.labels == network.model(frame).labels)
        for answer, frame in zip(answers, frames, strict=True)
    ]


def held(frames, network, every):
    """The same where the labels of each key frame simply stay."""
    keys = [network.model(frames[index - index % every]).labels for index in range(len(frames))]
    return [np.mean(key == network.model(frame).labels) for key, frame in zip(keys, frames, strict=True)]


@pytest.mark.parametrize("look_ahead", [True, False])
@pytest.mark.parametrize("count", [1, 2, 4, 5, 14])
def test_every_fourth_frame_is_seen_and_all_have_labels_that_fit(count, look_ahead):
    frames, network = pan(count), Network()
    answers = run(network, frames, key_every=4, smooth=0.0, look_ahead=look_ahead)
    # Of a file the last frame is one too, so that all others lie between two.
    keys = {*range(0, count, 4), count - 1} if look_ahead else {*range(0, count, 4)}
    assert network.runs == len(keys)
    assert [answer.result.from_key is None for answer in answers] == [index in keys for index in range(count)]
    found, stale = agreement(answers, frames, network), held(frames, network, 4)
    assert np.mean(found) > 0.97
    assert np.mean(found) >= np.mean(stale)
    if count > 4:
        assert 1 - np.mean(found) < 0.35 * (1 - np.mean(stale))


def test_both_sides_are_better_than_the_past_alone():
    frames, network = pan(17, velocity=(2.0, 3.0), seed=4), Network()
    both = agreement(run(network, frames, key_every=8, smooth=0.0), frames, network)
    past = agreement(run(network, frames, key_every=8, smooth=0.0, look_ahead=False), frames, network)
    assert np.mean(both[1:-1]) > np.mean(past[1:-1]) + 0.01


def test_without_mixing_key_frames_are_what_the_network_says():
    frames, network = pan(9, seed=2), Network()
    answers = run(network, frames, key_every=4, smooth=0.0)
    for index in (0, 4, 8):
        np.testing.assert_array_equal(answers[index].result.labels, network.model(frames[index]).labels)


def test_still_frames_keep_the_labels_of_their_key_frame():
    frames, network = pan(1, seed=3) * 9, Network()
    answers = run(network, frames, key_every=4, smooth=0.0)
    expected = network.model(frames[0]).labels
    for answer in answers:
        np.testing.assert_array_equal(answer.result.labels, expected)


def test_it_says_where_labels_come_from():
    answers = run(Network(), pan(6), key_every=4, look_ahead=False)
    keys = [answer.result.from_key for answer in answers]
    assert [key and key.index for key in keys] == [None, 0, 0, 0, None, 4]
    assert [key and round(key.seconds, 3) for key in keys] == [None, 0.04, 0.08, 0.12, None, 0.04]
    assert all(0.5 < key.belief <= 1 for key in keys if key)
    assert answers[0].result.to_record().keys() == {"shares"}
    record = answers[3].result.to_record()["carried"]
    assert record == {"from": 0, "seconds": 0.12, "belief": round(keys[3].belief, 3)}


def test_smoothing_sees_every_frame_and_calms_a_network_that_is_not_sure():
    """Noise on the logits: what is carried along the motion averages it, and what is still is averaged most."""
    rng = np.random.default_rng(0)
    frames, quiet = pan(16), Network()
    noisy = Network()
    run_once = noisy.run

    def unsure(inputs):
        outputs = run_once(inputs)
        return {"logits": outputs["logits"] + rng.normal(0, 4, outputs["logits"].shape).astype(np.float32)}

    noisy.run = unsure
    plain = agreement(run(noisy, frames), frames, quiet)
    steady = agreement(run(noisy, frames, smooth=MIX), frames, quiet)
    assert noisy.runs == 2 * len(frames)
    assert 1 - np.mean(steady[4:]) < 0.6 * (1 - np.mean(plain[4:]))


@pytest.mark.parametrize("look_ahead", [True, False])
def test_a_cut_is_seen_and_nothing_is_carried_across_it(look_ahead):
    frames, network = pan(6, seed=5) + pan(7, seed=6), Network()
    answers = run(network, frames, key_every=4, smooth=0.0, look_ahead=look_ahead)
    keys = [0, 4, 6, 10, 12] if look_ahead else [0, 4, 6, 10]
    assert [i for i, answer in enumerate(answers) if answer.result.from_key is None] == keys
    np.testing.assert_array_equal(answers[6].result.labels, network.model(frames[6]).labels)
    assert min(agreement(answers, frames, network)) > 0.9


def test_unrelated_images_are_all_seen():
    frames = [window(scene(seed), 50, 50) for seed in range(6)]
    network = Network()
    answers = run(network, frames, key_every=4, kind="folder")
    assert network.runs == 6
    assert min(agreement(answers, frames, network)) > 0.97
    answers = run(network, frames, key_every=4, kind="folder", smooth=0.0)
    assert agreement(answers, frames, network) == [1.0] * 6


def test_black_frames_flashes_and_fades_end_in_right_labels():
    frames = pan(24, seed=7)
    frames[5] = np.full_like(frames[5], 255)
    frames[10:13] = [np.zeros_like(frames[0])] * 3
    for index in range(16, 24):
        frames[index] = (frames[index] * (1 - (index - 15) / 9)).astype(np.uint8)
    network = Network()
    answers = run(network, frames, key_every=4)
    assert network.runs < 24
    assert min(agreement(answers, frames, network)[:16]) > 0.9


def test_another_size_begins_anew():
    frames = pan(6) + pan(6, size_hw=(48, 200)) + pan(3)
    network = Network()
    answers = run(network, frames, key_every=4)
    assert [answer.result.labels.shape for answer in answers] == [frame.shape[:2] for frame in frames]
    assert [i for i, answer in enumerate(answers) if answer.result.from_key is None] == [0, 4, 6, 10, 12, 14]
    assert min(agreement(answers, frames, network)) > 0.85


@pytest.mark.parametrize("resize", ["letterbox", "pad", "stretch"])
@pytest.mark.parametrize("frame_hw", [(60, 200), (150, 90)])
def test_frames_that_do_not_fill_the_input(resize, frame_hw):
    """Offsets of the frame are brought to where it lies in the input: else labels move by too much, or elsewhere."""
    frames = pan(9, velocity=(2.0, 3.0), size_hw=frame_hw, seed=8)
    network = Network(input={"resize": resize})
    found = agreement(run(network, frames, key_every=8, smooth=0.0), frames, network)
    stale = held(frames, network, 8)
    assert 1 - np.mean(found) < 0.5 * (1 - np.mean(stale))


def test_times_decide_where_a_time_is_given():
    times = [0.0, 0.04, 0.08, 0.2, 0.21, 0.22, 0.4, 0.44, 3.0]
    network = Network()
    answers = run(network, pan(9), key_every="0.2s", times=times)
    assert [i for i, answer in enumerate(answers) if answer.result.from_key is None] == [0, 3, 6, 8]


def test_times_that_jump_back_at_a_key_frame_do_not_make_labels_that_neither_side_has():
    """Taken at their word they would be far beyond the second key frame, where the second class wins."""
    network = Network()

    def unsure(inputs):
        logits = np.zeros((1, 3, ROWS // STRIDE, COLUMNS // STRIDE), np.float32)
        logits[:, 0], logits[:, 1] = [(2, 0), (1, 0.9)][network.runs]
        network.asked.append(inputs)
        return {"logits": logits}

    network.run = unsure
    answers = run(network, pan(5, velocity=(0, 0)), key_every=4, smooth=0.0, times=[0.0, 0.1, 0.2, 0.3, 0.15])
    assert [answer.result.labels.max() for answer in answers] == [0] * 5


@pytest.mark.parametrize("options", [{"smooth": 0.5}, {"key_every": 4, "smooth": 0.0}])
def test_infinities_of_a_graph_that_comes_out_a_cell_short_are_large_and_not_nan(options):
    network = Network()
    whole = network.run

    def overflown(inputs):
        logits = whole(inputs)["logits"][:, :, :-1, :-1].astype(np.float16)
        logits[:, 0, :8, :8], logits[:, 1, :8, :8] = np.inf, -np.inf
        return {"logits": logits}

    network.run = overflown
    for answer in run(network, pan(5, velocity=(0, 0)), **options):
        assert (answer.result.labels[:24, :24] == 0).all()


def test_auto_keeps_up_with_a_slow_network():
    network = Network(work=lambda frames: time.sleep(0.1))
    run(network, pan(40), key_every="auto")
    assert 8 <= network.runs < 24  # every third frame once it is known that a run takes 2.5 frames


@pytest.mark.parametrize(("key_every", "look_ahead", "most"), [(4, True, 22), (10_000, True, 60), (10_000, False, 22)])
def test_memory_is_bounded_by_a_key_interval_and_by_the_most_that_wait(key_every, look_ahead, most):
    """The source is never read far ahead of what has come out, however slowly that is made."""
    read, frames, network = [], pan(40), Network()
    answer = network.model.answer
    network.model.answer = lambda *arguments: (time.sleep(0.004), answer(*arguments))[1]

    def decoded():
        for index in range(150):
            read.append(index)
            yield Decoded(frames[index % 20], index / 25)

    source = Source(decoded(), kind="video", name="clip", frames_per_second=None)
    options = {"key_every": key_every, "look_ahead": look_ahead}
    with Pipeline(network.model, [source], policy="every-frame", **options) as pipeline:
        ahead = [len(read) - answer.frame.index for answer in pipeline]
    assert max(ahead) <= most


def test_sources_do_not_mix_and_share_a_batch():
    clips = {"a": pan(9, seed=1), "b": pan(9, seed=2, size_hw=(60, 160)), "c": pan(5, seed=3)}
    network = Network(batch=2)
    sources = [video(frames, name=name) for name, frames in clips.items()]
    with Pipeline(network.model, sources, policy="every-frame", key_every=4) as pipeline:
        answers = [(each.frame.source, each.frame.index, each.result) for each in pipeline]
    for name, frames in clips.items():
        own = [(index, result) for source, index, result in answers if source == name]
        assert [index for index, _ in own] == list(range(len(frames)))
        assert [index for index, result in own if result.from_key is None] == list(range(0, len(frames), 4))
        alone = run(Network(), frames, key_every=4)
        for (_, result), answer in zip(own, alone, strict=True):
            np.testing.assert_array_equal(result.labels, answer.result.labels)


def test_classes_that_overlap_are_carried_too():
    frames, network = pan(9), Network(threshold=0.5, multi_label=True)
    answers = run(network, frames, key_every=4, smooth=0.0)
    for answer, frame in zip(answers, frames, strict=True):
        assert np.mean(answer.result.masks == network.model(frame).masks) > 0.97
    assert network.runs >= 3


@pytest.mark.parametrize("threshold", [1e-5, 0.9999])
def test_a_threshold_near_the_end_is_still_met_where_answers_are_mixed(threshold):
    frames, network = pan(5, velocity=(0, 0)), Network(threshold=threshold, multi_label=True)
    whole = network.run
    network.run = lambda inputs: {"logits": 4 * whole(inputs)["logits"]}
    expected = network.model(frames[0]).masks
    assert 0.1 < expected.mean() < 0.9
    for answer in run(network, frames, smooth=MIX):
        assert np.mean(answer.result.masks == expected) > 0.98


def test_a_model_that_gives_labels_is_refused():
    network = Network(outputs=(OutputSpec("logits", "labels", 4),))
    for options in ({"key_every": 4}, {"smooth": 0.5}, {"still": True}):
        with pytest.raises(
            UsageError, match="needs logits, and this model gives labels; export it with --output logits"
        ):
            run(network, pan(2), **options)


def test_nan_is_an_error_as_without_motion():
    network = Network()
    network.run = lambda inputs: {"logits": np.full((1, 3, 24, 32), np.nan, np.float32)}
    with pytest.raises(BackendError, match="NaN"):
        run(network, pan(2), key_every=4)


def test_a_network_that_fails_ends_the_run():
    network = Network()

    def broken(inputs):
        raise BackendError("the card is gone")

    network.run = broken
    with pytest.raises(BackendError, match="gone"):
        run(network, pan(9), key_every=4)
    assert not [each for each in threading.enumerate() if each.name.startswith("sfpp-")]


def test_stopping_early_keeps_the_order():
    with Pipeline(Network().model, [video(pan(30))], key_every=4, max_frames=10) as pipeline:
        assert [answer.frame.index for answer in pipeline] == list(range(10))
    with Pipeline(Network().model, [video(pan(30))], key_every=4) as pipeline:
        taken = []
        for answer in pipeline:
            taken.append(answer.frame.index)
            if len(taken) == 6:
                pipeline.stop()
    assert taken == list(range(6))


def still_then_walking(count, *, walks_from, noise=3.0):
    """A camera that stands, with noise; from some frame on a patch moves."""
    rng = np.random.default_rng(0)
    background, person = window(scene(1), 50, 50), window(scene(2), 80, 80, (30, 12))
    frames = []
    for index in range(count):
        frame = background.astype(np.float32)
        if index >= walks_from:
            left = 10 + 2 * (index - walks_from)
            frame[30:60, left : left + 12] = person
        frames.append(np.clip(frame + rng.normal(0, noise, frame.shape), 0, 255).astype(np.uint8))
    return frames


def test_the_network_rests_while_nothing_moves():
    frames, network = still_then_walking(30, walks_from=100), Network()
    answers = run(network, frames, still=True)
    assert network.runs == 1
    assert min(agreement(answers, frames, network)) > 0.97


def test_the_network_sees_who_walks_in_and_looks_again_after_two_seconds():
    frames, network = still_then_walking(20, walks_from=10), Network()
    answers = run(network, frames, still=True)
    assert [i for i, answer in enumerate(answers) if answer.result.from_key is None][:3] == [0, 10, 11]
    network = Network()
    run(network, still_then_walking(21, walks_from=100), still=True, rate=5)
    assert network.runs == 3  # at 0, 2 and 4 s


def test_a_change_of_light_is_no_motion():
    frames = still_then_walking(20, walks_from=100)
    frames = [np.clip(frame.astype(int) + 2 * index, 0, 255).astype(np.uint8) for index, frame in enumerate(frames)]
    network = Network()
    run(network, frames, still=True)
    assert network.runs < 6
