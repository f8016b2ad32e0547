"""The benchmark of motion from end to end, on a drive of a few small frames with a model that tells colors."""

import json
import time
from dataclasses import asdict, replace

import numpy as np
import pytest

from benchmarks.motion import live, quality, speed
from benchmarks.motion.__main__ import keep
from benchmarks.motion.drive import Drive, answers_of, recorded
from benchmarks.motion.live import Shown, at_the_time
from benchmarks.motion.quality import Quality, Setting
from benchmarks.motion.scores import Judge
from sfpp.runtime.errors import SfppError
from sfpp.runtime.typed_json import dataclass_from_json
from tests.runtime.video.clips import CONTRACT, rgb_segmenter

FRAMES = 22


@pytest.fixture(scope="module")
def drive():
    """A red square goes to the right over noise that is green at the left and blue at the right."""
    noise = np.random.default_rng(0).integers(0, 60, (24, 32, 1), dtype=np.uint8)
    frames, truth = [], []
    for index in range(FRAMES):
        labels = np.where(np.arange(32) < 16, 1, 2) * np.ones((24, 1), int)
        labels[8:16, index // 2 : index // 2 + 12] = 0
        frames.append(noise + np.uint8(150) * np.eye(3, dtype=np.uint8)[2 - labels])
        truth.append(labels.astype(np.int16))
    return Drive(frames, truth)


@pytest.fixture(scope="module")
def judge(drive):
    return Judge(drive, CONTRACT.classes)


def test_known_answers_are_the_networks(drive):
    model = rgb_segmenter()
    known = recorded(CONTRACT, answers_of(model, drive), takes_s=0.02)
    start_s = time.monotonic()
    for frame in drive.frames_bgr[:3]:
        assert np.array_equal(known(frame).labels, model(frame).labels)
    assert time.monotonic() - start_s >= 0.06
    with pytest.raises((KeyError, SfppError)):
        known(255 - drive.frames_bgr[0])


def test_files_are_measured_with_each_setting(drive, judge):
    settings = quality.EVERY_FRAME, Setting(2, 0.8), Setting(4, 0.8, look_ahead=True)
    every, causal, ahead = quality.measure("tiny", "32x24", rgb_segmenter(), drive, judge, settings)
    plain = judge.scores(judge.counts([rgb_segmenter()(frame).labels for frame in drive.frames_bgr]))
    assert every.mean_iou == plain["mean_iou"]
    assert every.to_every_frame is None
    for row in (causal, ahead):
        assert row.mean_iou > 0.7
        assert row.to_every_frame.points == pytest.approx(100 * (row.mean_iou - every.mean_iou), abs=2)
    assert (causal.way, ahead.way) == ("before", "both sides")
    text = quality.full_table([every, causal, ahead], "tiny", "32x24")
    assert "| 1 of 4 | both sides |" in text
    assert "| 1 of 2 |" not in quality.cases_table([every, causal, ahead])
    assert f"{every.iou_by_class['blue']:.1%}" in quality.classes_table([every], "tiny", "32x24")


def test_key_frames_differ_from_phase_to_phase(drive):
    seen = []

    def noted(model, first):
        infer = model.infer
        model.infer = lambda prepared: seen.append(prepared.tensor.tobytes()) or infer(prepared)
        return quality.labels_of(model, drive, Setting(4, 0.8), first)

    known = [rgb_segmenter().prepare(frame).tensor.tobytes() for frame in drive.frames_bgr]
    assert Setting(4, 0.8).phases == (0, 2)
    for first in (0, 2):
        seen.clear()
        labels = noted(rgb_segmenter(), first)
        assert [known.index(each) for each in seen] == list(range(first, FRAMES, 4))
        assert [each is None for each in labels] == [index < first for index in range(FRAMES)]


def test_every_frame_counts_as_often_as_it_was_run(judge):
    counts = np.zeros((FRAMES, 3, 3))
    counts[:, 0, 0], counts[:, 1, 1] = 50, 50
    counts[0] = [[0, 50, 0], [50, 0, 0], [0, 0, 0]]
    twice = counts * 2
    twice[0] = counts[0]  # the second run begins later
    found = quality.compared({"confusion": twice}, {"confusion": counts}, (0, 1))
    assert (found.points, found.low, found.high) == (0, 0, 0)


def test_the_newest_labels_at_the_time_are_taken():
    maps = [np.full((1, 1), each, np.uint8) for each in range(3)]
    came_s = [100 + index * live.FRAME_S for index in range(5)]
    shown = [Shown(came_s[at] + live.FRAME_S + late, maps[each], 0, 0) for each, (at, late) in enumerate(
        [(0, 0.001), (1, -0.001), (3, -0.001)]
    )]  # fmt: skip
    found = at_the_time(shown, came_s)
    assert [None if each is None else int(each[0, 0]) for each in found] == [None, 1, 1, 2, 2]


def test_a_camera_is_measured_by_the_clock(drive, judge):
    at_once, fresh, follow = live.measure("tiny", "32x24", rgb_segmenter(), drive, judge, rounds=1, takes_frames=(2,))
    assert (at_once.takes_frames, fresh.policy, follow.policy) == (0, "freshest", "follow")
    assert fresh.shown < follow.shown <= 1
    assert fresh.labels_age_ms == fresh.frame_age_ms
    assert min(fresh.frame_age_ms) >= 2000 * live.FRAME_S
    assert follow.labels_age_ms[0] > follow.frame_age_ms[0]
    assert "| 2 frames | `follow` |" in live.markdown_table([at_once, fresh, follow])
    row = json.loads(json.dumps(asdict(follow)))
    assert dataclass_from_json(live.Live, row, where="row") == follow


def test_frames_without_labels_are_not_judged_in_silence():
    with pytest.raises(RuntimeError, match="nothing was shown"):
        live.judged([None] * 12)
    assert live.judged([None, *"ab" * 10])[:11] == [None] * 10 + ["b"]


def test_runs_are_timed_and_costs_counted():
    model = rgb_segmenter()
    rows = speed.measure("tiny@here", "64x48", model, frames=5, rounds=2)
    assert [(row.written, len(row.every_frame), len(row.key_frames)) for row in rows] == [(False, 2, 2), (True, 2, 2)]
    assert "| `tiny` | 64x48 | to an MP4 |" in speed.speed_table(rows)
    halved = replace(rows[0], every_frame=(10.0, 10.0), key_frames=(20.0, 30.0))
    assert "| 10.0 | 25.0 | 2.50 (2.00..3.00) |" in speed.speed_table([halved])
    cost = speed.Cost("tiny@here", "64x48", 50.0, 1.0, 2.0, 4.0)
    assert "| 50.0 ms | 1.0 ms | 2.0 ms | 4.0% | 4.0 ms | 8.0% |" in speed.cost_table([cost])
    measured = speed.cost("tiny", "64x48", model, frames=6)
    assert measured.network_ms >= 0
    assert np.isfinite([measured.carried_ms, measured.carried_ahead_ms]).all()


def test_results_of_other_cases_and_parts_stay(tmp_path):
    path = tmp_path / "motion.json"
    row = Quality(0.6, 0.9, 0.5, 0.03, 0.9, 0.8, {"red": 0.6}, "original", "480x360", 1, 0.0, False)
    keep(path, "live", [live.Live(0.6, 0.9, 0.5, 0.03, 0.9, 0.8, {}, "original", "480x360", "follow", 1)])
    keep(path, "quality", [replace(row, case="fast"), replace(row, case="fast", smooth=0.8)])
    keep(path, "quality", [replace(row, res="960x720")])
    keep(path, "quality", [row])
    keep(path, "quality", [replace(row, case="fast", mean_iou=0.7)])
    content = json.loads(path.read_text())
    assert [(each["case"], each["res"], each["mean_iou"]) for each in content["quality"]["results"]] == [
        ("original", "480x360", 0.6),
        ("fast", "480x360", 0.7),
        ("original", "960x720", 0.6),
    ]
    assert len(content["live"]["results"]) == 1
    assert "processor" in content["quality"]["machine"]
