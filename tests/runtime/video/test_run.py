import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from sfpp.runtime import BackendError, MediaError, Segmenter, UsageError
from sfpp.runtime.cli.stopping import listening, stop_on_signals
from sfpp.runtime.video import Delivery, Pipeline, Source, open_sink, open_source, stages
from sfpp.runtime.video.frame import Decoded
from sfpp.runtime.video.outputs import Outputs, Plan, Sinks, default_overlay
from sfpp.runtime.video.readers import expected_frames
from tests.runtime.video import running
from tests.runtime.video.clips import index_of, picture, read_clip, rgb_segmenter, write_clip
from tests.runtime.video.running import Collected

ROOT = Path(__file__).parents[3]


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "clip.mp4", frames=20)


STYLE = ("alpha", "legend")


def run(path, *, overlays=(), masks=(), **options):
    style = {name: options.pop(name) for name in STYLE if name in options}
    with open_source(str(path)) as source, rgb_segmenter() as model:
        return running.run(model, source, overlays, masks=masks, style=style, **options)


def test_sinks_receive_each_frames_own_answer(clip):
    overlay, masks = Collected(), Collected()
    report = run(clip, overlays=[overlay], masks=[masks], alpha=0.3, legend=False)
    model = rgb_segmenter()
    with open_source(str(clip)) as source:
        for index, frame in enumerate(source):
            result = model(frame.image_bgr)
            np.testing.assert_array_equal(masks.given[index], result.labels)
            expected = result.draw(frame.image_bgr, alpha=0.3, legend=False)
            np.testing.assert_array_equal(overlay.given[index], expected)
            assert overlay.frames[index].name == masks.frames[index].name == frame.name
    assert report.frames == len(masks.given) == len(overlay.given) == 20
    np.testing.assert_array_equal(report.last.labels, masks.given[-1])
    assert not report.pipeline.stopped


def test_alpha_and_legend_reach_the_overlay(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", frames=1, size_hw=(120, 160))
    plain, tinted, named = Collected(), Collected(), Collected()
    run(clip, overlays=[plain], alpha=0.0, legend=False, max_frames=1)
    run(clip, overlays=[tinted], alpha=1.0, legend=False, max_frames=1)
    run(clip, overlays=[named], alpha=0.0, max_frames=1)
    np.testing.assert_array_equal(plain.given[0], plain.frames[0].image_bgr)
    assert {tuple(color) for color in tinted.given[0].reshape(-1, 3)} <= {(255, 0, 0), (0, 255, 0), (0, 0, 255)}
    assert not np.array_equal(named.given[0], plain.given[0])


@pytest.mark.parametrize("every", [1, 2, 3, 7, 19, 20, 50])
@pytest.mark.parametrize("max_frames", [None, 1, 2, 5, 20, 100])
def test_every_and_max_frames_choose_like_a_slice(clip, every, max_frames):
    masks, told = Collected(), []
    with open_source(str(clip)) as source, rgb_segmenter() as model:
        expected = expected_frames(source, every=every, max_frames=max_frames)
        running.run(model, source, masks=[masks], every=every, max_frames=max_frames, on_frame=told.append)
    indices = list(range(20))[::every][:max_frames]
    assert [frame.index for frame in masks.frames] == indices
    assert [index_of(frame.image_bgr, among=20) for frame in masks.frames[:2]] == indices[:2]
    assert told == list(range(1, len(indices) + 1))
    assert expected == len(indices)


def test_stages_are_timed_once_a_frame(clip):
    report = run(clip, overlays=[Collected()], masks=[Collected()], max_frames=4)
    assert report.timer.stages == ("decode", "prepare", "infer", "labels", "draw", "encode", "masks")
    assert {report.timer.latency(stage).count for stage in report.timer.stages} == {4}
    report = run(clip, masks=[Collected()])
    assert "draw" not in report.timer.stages
    assert report.timer.latency("decode").count == 20  # the end of the video is no frame


def test_a_request_to_stop_ends_the_run_after_the_frame(clip):
    masks, done = Collected(), []
    report = run(clip, masks=[masks], should_stop=lambda: done[-1] == 3, on_frame=done.append)
    assert (report.frames, report.pipeline.stopped, len(masks.given)) == (3, True, 3)


def join_threads(prefix):
    for thread in threading.enumerate():
        if thread.name.startswith(prefix):
            thread.join(20)


class Failing(Collected):
    """A sink that fails at its fourth picture."""

    def write(self, frame, image):
        if frame.index == 3:
            raise MediaError("the disk has gone")
        super().write(frame, image)


@pytest.fixture
def _no_thread_is_left():
    yield
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("sfpp-")]


@pytest.mark.usefixtures("_no_thread_is_left")
@pytest.mark.parametrize("method", ["prepare_batch", "infer", "finish_batch"])
def test_frames_before_an_error_are_written_and_none_after_it(clip, monkeypatch, method):
    calls, work = [], getattr(Segmenter, method)

    def fails_later(self, *arguments):
        calls.append(method)
        if len(calls) == 6:
            raise BackendError(f"{method} has had enough")
        return work(self, *arguments)

    monkeypatch.setattr(Segmenter, method, fails_later)
    overlay, masks = Collected(), Collected()
    with pytest.raises(BackendError, match=f"{method} has had enough"):
        run(clip, overlays=[overlay], masks=[masks])
    for sink in (overlay, masks):
        assert [frame.index for frame in sink.frames] == [0, 1, 2, 3, 4]
    assert len(calls) == 6


@pytest.mark.usefixtures("_no_thread_is_left")
@pytest.mark.parametrize("broken", ["overlays", "masks"])
def test_after_a_sink_has_failed_nothing_more_is_written(clip, broken):
    other, told = Collected(), []
    sinks = {"overlays": [other], "masks": [other], broken: [Failing()]}
    with pytest.raises(MediaError, match="the disk has gone"):
        run(clip, **sinks, on_frame=told.append)
    # It is noticed when the next frame is handed over; one is on its way then, and one waits.
    assert [frame.index for frame in other.frames] == list(range(len(other.frames)))
    assert 3 <= len(other.frames) <= 7
    assert told == list(range(1, len(told) + 1))
    assert 3 <= len(told) <= 6


@pytest.mark.usefixtures("_no_thread_is_left")
def test_a_source_that_fails_after_some_frames():
    def decoded():
        for index in range(3):
            yield Decoded(picture(index), index / 25, str(index))
        raise MediaError("unplugged")

    masks = Collected()
    source = Source(decoded(), kind="camera", name="camera", frames_per_second=None)
    with pytest.raises(MediaError, match="unplugged"), source, rgb_segmenter() as model:
        running.run(model, source, masks=[masks])
    assert len(masks.frames) == 3


@pytest.mark.usefixtures("_no_thread_is_left")
def test_a_source_without_any_frame():
    source = Source((Decoded(picture(0), 0.0, "") for _ in ()), kind="video", name="nothing", frames_per_second=None)
    with pytest.raises(MediaError, match="nothing holds no frame"), source, rgb_segmenter() as model:
        running.run(model, source)


def test_the_next_frame_is_decoded_while_the_model_runs(monkeypatch):
    decoded_next = {index: threading.Event() for index in range(11)}

    def decoded():
        for index in range(10):
            decoded_next[index].set()
            yield Decoded(picture(index), index / 25, str(index))
        decoded_next[10].set()

    infer, done = Segmenter.infer, []

    def waits_for_the_decoder(self, prepared):
        done.append(1)
        assert decoded_next[len(done)].wait(20)
        return infer(self, prepared)

    monkeypatch.setattr(Segmenter, "infer", waits_for_the_decoder)
    source = Source(decoded(), kind="video", name="clip", frames_per_second=Fraction(25))
    with source, rgb_segmenter() as model:
        assert running.run(model, source).frames == 10


def test_each_sink_is_touched_by_one_thread_alone(clip):
    names = {}

    class Noting(Collected):
        def write(self, frame, image):
            names.setdefault(self, set()).add(threading.current_thread().name)

    run(clip, overlays=[Noting()], masks=[Noting()], max_frames=3)
    assert sorted(map(sorted, names.values())) == [["sfpp-sink-encode"], ["sfpp-sink-masks"]]


def test_a_second_ctrl_c_does_not_wait_for_a_stage_that_is_stuck(clip, tmp_path):
    """In an interpreter of its own: the signals are real, and would be this one's as well."""
    call = f"interrupt_twice({str(clip)!r}, {str(tmp_path / 'out.mp4')!r})"
    script = f"from tests.runtime.video.test_run import interrupt_twice\n{call}"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [index_of(image) for image in read_clip(tmp_path / "out.mp4")] == [0, 1, 2]


def interrupt_twice(clip, out):
    """Send two signals while the model is stuck with the fourth frame; whatever goes wrong raises."""
    release, written, infer, calls = threading.Event(), threading.Event(), Segmenter.infer, []
    threads_before = threading.active_count()

    def gets_stuck(self, prepared):
        calls.append(1)
        if len(calls) == 4:
            assert written.wait(20)
            join_threads("sfpp-decode")  # only this stage is stuck
            os.kill(os.getpid(), signal.SIGINT)
            while not stop():  # signals that come too soon after each other are one
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGINT)
            assert release.wait(20)
        return infer(self, prepared)

    options = {"on_frame": lambda done: done == 3 and written.set()}
    with pytest.MonkeyPatch.context() as patch, listening("sfpp-test"), stop_on_signals() as stop:
        patch.setattr(stages, "_PATIENCE_S", 0.01)
        patch.setattr(Segmenter, "infer", gets_stuck)
        with pytest.raises(KeyboardInterrupt), open_sink(out) as sink:
            run(clip, overlays=[sink], alpha=0, legend=False, max_frames=5, **options)
        assert threading.active_count() > threads_before  # the stuck one was left behind
        release.set()
        join_threads("sfpp-")
    assert threading.active_count() == threads_before


def test_warnings_of_the_source_are_in_the_report(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), picture(0))
    (tmp_path / "b.png").write_text("no picture")
    report = run(tmp_path)
    assert report.frames == 1
    assert len(report.pipeline.warnings) == 1


def test_every_second_frame_makes_half_the_rate(clip, tmp_path):
    with open_source(str(clip)) as source:
        plan = Plan({source.name: Outputs((str(tmp_path / "out.mp4"),))}, every=2)
        with (
            rgb_segmenter() as model,
            Pipeline(model, [source], every=2) as pipeline,
            Sinks(plan, [source]) as sinks,
            sinks.of(source) as opened,
        ):
            delivery = Delivery({source.name: opened}, style={"alpha": 0, "legend": False})
            for answer in pipeline:
                delivery.take(answer)
    with open_source(str(tmp_path / "out.mp4")) as source:
        assert source.frames_per_second == Fraction(25, 2)
        assert source.count == 10
    assert [index_of(image) for image in read_clip(tmp_path / "out.mp4")] == list(range(0, 20, 2))


def test_outputs_are_named_after_the_input(clip, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.jpg"), picture(0))
    names = {}
    for path in (clip, folder, folder / "a.jpg"):
        with open_source(str(path)) as source:
            names[path.name] = default_overlay(source)
    assert names == {"clip.mp4": "clip-sfpp.mp4", "pictures": "pictures-sfpp/", "a.jpg": "a-sfpp.png"}


def test_outputs_must_not_meet_the_input_or_each_other(clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "pictures"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), picture(0))
    (tmp_path / "link.mp4").symlink_to(clip)
    cases = [
        ("clip.mp4", Outputs(("./clip.mp4",)), "is the input itself"),
        ("clip.mp4", Outputs(("link.mp4",)), "is the input itself"),
        ("clip.mp4", Outputs(("x.mp4",), masks="x.mp4"), "two outputs go to x.mp4"),
        ("pictures", Outputs(("pictures/",)), "holds the input, which would be overwritten"),
        ("pictures", Outputs(("out",), snapshot="pictures/a.png"), "is the input itself"),
        ("pictures/a.png", Outputs(masks="pictures"), "holds the input"),
    ]
    for text, outputs, words in cases:
        with open_source(text) as source, pytest.raises(UsageError, match=words):
            Plan({source.name: outputs}).check([source])
    with open_source("clip.mp4") as source:  # a folder of masks beside a video overwrites nothing
        Plan({source.name: Outputs(("out.mp4",), masks=".")}).check([source])
