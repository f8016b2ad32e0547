import statistics
import threading
import time

import numpy as np
import pytest

from sfpp.runtime.backends import FunctionBackend
from sfpp.runtime.errors import BackendError, MediaError, UsageError
from sfpp.runtime.pixels.pictures import write_image
from sfpp.runtime.segmentation import Segmenter
from sfpp.runtime.video.frame import Decoded, Source
from sfpp.runtime.video.pipeline import Pipeline
from tests.runtime.video.clips import CONTRACT, picture, rgb_segmenter
from tests.runtime.video.scenes import camera, slow_model
from tests.runtime.video.sources.fakes import LONG_S, Line, gray


def threads():
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("sfpp-")}


def test_every_frame_gives_every_answer_in_order():
    source, model = camera(frames=12), rgb_segmenter()
    with Pipeline(model, [source], policy="every-frame") as pipeline:
        answers = list(pipeline)
    assert [answer.frame.index for answer in answers] == list(range(12))
    for answer in answers:
        expected = model(picture(answer.frame.index)).labels
        np.testing.assert_array_equal(answer.result.labels, expected)
        assert set(answer.latencies_ms) == {"prepare", "infer", "labels"}
        assert answer.age_ms > 0
    assert pipeline.dropped == {"camera": 0}
    assert not threads()


def test_files_are_taken_whole_and_live_sources_followed_unless_told_otherwise():
    model = rgb_segmenter()
    with Pipeline(model, [camera(frames=1)]) as pipeline:
        assert pipeline.policy == "every-frame"
    with Pipeline(model, [camera(frames=1, pause_s=0.001)]) as pipeline:
        assert pipeline.policy == "follow"
    for policy in ("freshest", "every-frame"):
        with Pipeline(model, [camera(frames=1, pause_s=0.001)], policy=policy) as pipeline:
            assert pipeline.policy == policy


def test_a_file_loses_no_frame_beside_a_live_source_unless_told_so():
    for policy in (None, "freshest"):
        file, live = camera("file", frames=20), camera("live", pause_s=1 / 200)
        with Pipeline(slow_model(0.03), [file, live], policy=policy) as pipeline:
            assert [pipeline.policy_of(each) for each in (file, live)] == [policy or "every-frame", "freshest"]
            answers = []
            for answer in pipeline:
                answers.append((answer.frame.source, answer.frame.index))
                if len(answers) == 50:
                    break
        got = [index for source, index in answers if source == "file"]
        if policy is None:
            assert got == list(range(20))
        assert pipeline.dropped["live"] > 20


def test_the_freshest_frame_is_shown_within_two_inference_times():
    infer_s, ages = 0.2, []
    with Pipeline(slow_model(infer_s), [camera(pause_s=1 / 60)], policy="freshest") as pipeline:
        for answer in pipeline:
            ages.append(answer.age_ms / 1e3)
            if len(ages) == 15:
                break
        dropped = pipeline.dropped["camera"]
        measured_s = pipeline.timer.latency("infer").p50_ms / 1e3
    assert dropped > 60  # about eleven a frame
    assert statistics.median(ages) < 1.5 * measured_s
    assert sorted(ages)[11] < 2 * measured_s  # four of five: the machine may be busy elsewhere for a moment
    assert not threads()


def test_the_model_hardly_waits_for_frames_to_be_prepared():
    """Preparing takes half of what the model takes: one after the other would reach two thirds of its speed."""
    model = slow_model(0.1)
    prepare = model.prepare_batch

    def slow_prepare(frames):
        time.sleep(0.05)
        return prepare(frames)

    model.prepare_batch = slow_prepare
    with Pipeline(model, [camera(pause_s=1 / 100)], policy="freshest") as pipeline:
        for count, _ in enumerate(pipeline):
            if count == 20:
                break
        assert pipeline.timer.busy_share("infer") > 0.8


def test_a_reader_that_is_slower_than_the_model_gets_fresh_answers_too():
    ages, pause_s = [], 0.2
    with Pipeline(slow_model(0.01), [camera(pause_s=1 / 100)], policy="freshest") as pipeline:
        for answer in pipeline:
            ages.append(answer.age_ms / 1e3)
            time.sleep(pause_s)
            if len(ages) == 8:
                break
    assert statistics.median(ages) < 1.5 * pause_s  # and not one more for each queue


def test_sources_take_turns():
    sources = [camera("a", frames=9), camera("b", frames=9), camera("c", frames=9)]
    with Pipeline(slow_model(0.02), sources, policy="every-frame") as pipeline:
        answers = [(answer.frame.source, answer.frame.index) for answer in pipeline]
    for name in "abc":
        assert [index for source, index in answers if source == name] == list(range(9))
        # The first nine are taken as fast as they are read; from then on each source has one that waits.
        assert 2 <= sum(source == name for source, _ in answers[9:18]) <= 4


def test_sources_share_a_batch():
    batches, model = [], rgb_segmenter()
    sources = [camera(name, frames=6) for name in "abc"]
    with Pipeline(slow_model(0.02, batch=2, batches=batches), sources, policy="every-frame") as pipeline:
        answers = list(pipeline)
    assert len(answers) == 18
    for answer in answers:
        expected = model(picture(answer.frame.index)).labels
        np.testing.assert_array_equal(answer.result.labels, expected)
    assert len(batches) < 18


def test_a_source_that_breaks_is_told_of_and_the_others_go_on():
    events = []
    sources = [camera("good", frames=9), camera("bad", frames=9, fails_after=2)]
    with Pipeline(rgb_segmenter(), sources, policy="every-frame", on_event=events.append) as pipeline:
        answers = [answer.frame.source for answer in pipeline]
    assert answers.count("good") == 9
    assert answers.count("bad") == 2
    assert {(event.source, event.kind) for event in events} >= {("bad", "gave-up"), ("good", "ended")}
    assert "bad is broken" in next(event.detail for event in events if event.kind == "gave-up")


def test_the_last_source_that_breaks_is_an_error():
    with (
        Pipeline(rgb_segmenter(), [camera("bad", frames=9, fails_after=2)], policy="every-frame") as pipeline,
        pytest.raises(MediaError, match="bad is broken"),
    ):
        list(pipeline)
    assert not threads()


def test_dropped_frames_and_changes_of_size_are_events():
    events = []
    source = camera(pause_s=0.002, size_hw=lambda index: (48, 64) if index < 30 else (96, 128))
    with Pipeline(slow_model(0.05), [source], policy="freshest", on_event=events.append) as pipeline:
        shapes = []
        start = time.monotonic()
        for answer in pipeline:
            shapes.append(answer.result.labels.shape)
            if shapes[-1] == (96, 128) and time.monotonic() - start > 1.5:
                break
    dropped = pipeline.dropped["camera"]
    assert shapes[0] == (48, 64)
    (changed,) = (event for event in events if event.kind == "size-changed")
    assert changed.detail == "from 64x48 to 128x96 (width x height)"
    told = [event for event in events if event.kind == "dropped"]
    assert sum(event.count for event in told) == dropped > 0
    assert len(told) <= 4  # once a second


def test_another_size_of_a_reconnecting_source_is_told_once():
    line = Line([gray(1, size_hw=(48, 64)), gray(2, size_hw=(96, 128))], connects_in_caller=True, tries=0)
    events = []
    with Pipeline(rgb_segmenter(), [line.open()], policy="every-frame", on_event=events.append) as pipeline:
        assert [answer.frame.image_bgr.shape[0] for answer in pipeline] == [48, 96]
    told = [event.detail for event in (*line.events, *events) if event.kind == "size-changed"]
    assert told == ["from 64x48 to 128x96 (width x height)"]


def test_pictures_of_a_folder_may_differ_in_size():
    def pictures():
        for rows in (48, 96):
            yield Decoded(picture(0, size_hw=(rows, 64)), 0.0, f"{rows}")

    events = []
    source = Source(pictures(), kind="folder", name="images", frames_per_second=None)
    with Pipeline(rgb_segmenter(), [source], on_event=events.append) as pipeline:
        assert [answer.frame.name for answer in pipeline] == ["48", "96"]
    assert not [event for event in events if event.kind == "size-changed"]


def test_a_lost_source_lets_go_of_its_reader_when_the_pipeline_ends(monkeypatch):
    lost = Line([gray(1, size_hw=(48, 64))], connects_in_caller=True, timeout_s=60.0)
    monkeypatch.setattr("sfpp.runtime.video.pipeline.open_source", lambda text, on_event: lost.open())
    monkeypatch.setattr("sfpp.runtime.video.pipeline._PATIENCE_S", LONG_S)
    with Pipeline(rgb_segmenter(), ["rtsp://camera"]) as pipeline:
        next(iter(pipeline))
        begun = time.monotonic()
    assert not threads()
    assert time.monotonic() - begun < LONG_S  # the reader was not waited for in vain


def test_stopping_from_another_thread_ends_the_iteration():
    with Pipeline(slow_model(0.01), [camera(pause_s=0.005)]) as pipeline:
        timer = threading.Timer(0.2, pipeline.stop)
        timer.start()
        for _ in pipeline:
            pass
        timer.join()
    assert not threads()


def test_a_source_that_is_stuck_stops_nobody(monkeypatch):
    monkeypatch.setattr("sfpp.runtime.video.pipeline._PATIENCE_S", 0.1)
    release = threading.Event()
    stuck = Source((release.wait(60) for _ in range(1)), kind="camera", name="stuck", frames_per_second=None)
    with Pipeline(rgb_segmenter(), [camera("good", frames=5), stuck], policy="every-frame") as pipeline:
        answers = iter(pipeline)
        assert [next(answers).frame.source for _ in range(5)] == ["good"] * 5
    assert threads() == {"sfpp-read-stuck"}  # a daemon, left behind
    release.set()


def test_an_error_of_the_model_is_raised_where_answers_are_taken():
    def broken(inputs):
        raise BackendError("the card is gone")

    model = Segmenter(FunctionBackend(broken, metadata={}), CONTRACT)
    for policy in ("freshest", "every-frame"):
        with Pipeline(model, [camera(frames=3)], policy=policy) as pipeline, pytest.raises(BackendError, match="gone"):
            list(pipeline)
    assert not threads()


def test_memory_and_threads_stay_flat_over_many_frames():
    import resource

    def run(frames):
        with Pipeline(rgb_segmenter(), [camera(frames=frames)], policy="every-frame") as pipeline:
            return sum(1 for _ in pipeline)

    assert run(300) == 300
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert run(3000) == 3000
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kb < 3000 * 9 // 2  # of frames of 9 KB each, not even half would fit
    assert not threads()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"policy": "newest"},
            "policy is 'newest', expected one of follow, freshest, every-frame, did you mean 'freshest'",
        ),
        ({"sources": []}, "there is no source; give at least one"),
        ({"sources": "street.mp4"}, "the sources are one text, expected a list"),
        ({"sources": [["rtsp://me:secret@host/x"]]}, "a source is given as list, expected a text"),
        ({"sources": [0]}, "a source is given as int, expected a text, such as a file's name, '0' for a webcam"),
        ({"smooth": 1.0}, "expected a number, 0 .none. to below 1"),
        ({"sources": [camera(frames=1), camera(frames=1)]}, "two sources are called 'camera'"),
    ],
)
def test_wrong_arguments(arguments, message):
    arguments = {"sources": [camera(frames=1)], **arguments}
    with pytest.raises((UsageError, MediaError), match=message):
        Pipeline(rgb_segmenter(), **arguments)


def test_sources_are_opened_by_name_and_closed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where nothing else is called demo
    with pytest.raises(MediaError, match="does not exist"):
        Pipeline(rgb_segmenter(), [str(tmp_path / "nothing.mp4")])
    with Pipeline(rgb_segmenter(), ["demo"]) as pipeline:
        answer = next(iter(pipeline))
    assert answer.frame.source == "highway"
    assert not threads()


def test_a_source_may_be_a_path(tmp_path):
    write_image(tmp_path / "street.png", picture(0))
    (pair,) = rgb_segmenter().stream(tmp_path / "street.png")
    assert pair[0].name == "street"
    with pytest.raises(UsageError, match="the sources are one path, expected a list"):
        Pipeline(rgb_segmenter(), tmp_path / "street.png")
    with pytest.raises(UsageError, match="the sources are one text, expected a list"):
        Pipeline(rgb_segmenter(), "street.png")


def test_a_model_streams_frames_with_their_answers():
    model = rgb_segmenter()
    pairs = list(model.stream(camera(frames=4), policy="every-frame"))
    assert [frame.index for frame, _ in pairs] == [0, 1, 2, 3]
    for frame, result in pairs:
        np.testing.assert_array_equal(result.labels, model(frame.image_bgr).labels)
    for _ in model.stream(camera(pause_s=0.001)):
        break
    assert not threads()
    with pytest.raises(TypeError, match="polcy"):
        model.stream("nowhere.mp4", polcy="freshest")  # told at the call, before anything is opened
