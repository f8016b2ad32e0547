"""What `sfpp-run` says at the end of a run in which labels were carried."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from sfpp.runtime.cli.reporter import Reporter
from sfpp.runtime.motion.options import FromKey, Motion
from sfpp.runtime.segmentation import Segmentation
from sfpp.runtime.timing import StageTimer
from sfpp.runtime.video.pipeline import Answer
from tests.runtime.video.clips import CONTRACT, frame

PLAIN = Segmentation(np.zeros((48, 64), np.uint8), CONTRACT.classes, CONTRACT.palette)


def answer(index, key=None, *, source="street", belief=0.75, step_s=0.1):
    """For a frame whose labels were carried from ``key``, or which the network saw."""
    from_key = None if key is None else FromKey(key, (index - key) * step_s, belief)
    return Answer(replace(frame(index), source=source), replace(PLAIN, from_key=from_key), 20.0)


def finished(capsys, answers, *, live=False, advice=None, **motion):
    """What a reporter prints of a run: its lines on standard output, and what it warns of."""
    reporter = Reporter()
    sources = [SimpleNamespace(name=name, live=live) for name in ("street", "yard")]
    facts = {"expected": None, "warnings": (), "sources": sources, "stopped": False, "motion": Motion(**motion)}
    pipeline = SimpleNamespace(**facts, policy="every-frame", dropped={}, timer=StageTimer())
    with reporter.run(pipeline):
        for each in answers:
            reporter.saw(each)
    reporter.finish(pipeline, advice=advice)
    captured = capsys.readouterr()
    return captured.out.splitlines(), captured.err


def test_a_run_without_carried_labels_says_nothing_of_them(capsys):
    out, err = finished(capsys, [answer(index) for index in range(3)], live=True)
    assert out == ["3 frames of street", "age from a frame's coming to its answer: 20 ms (median), 20 ms (99 %)"]
    assert err == ""


def test_it_says_how_many_frames_the_network_saw(capsys):
    run = [answer(index, None if index % 4 == 0 else index - index % 4) for index in range(101)]
    out, err = finished(capsys, run)
    assert out == [
        "101 frames of street",
        "the network saw 26 of 101 frames; the motion to the others was followed well (trusted to 75%)",
    ]
    assert err == ""


def test_where_every_frame_is_shown_at_once_frames_are_counted_that_labels_come_from(capsys):
    keys = [None, 0, 0, 0, 2, 2, 2, 5, 5, 5]  # only the first one waited for the network
    street = [answer(index, key) for index, key in enumerate(keys)]
    yard = [answer(index, None if index == 0 else 0, source="yard") for index in range(10)]
    out, _ = finished(capsys, [each for pair in zip(street, yard, strict=True) for each in pair], live=True)
    assert out[1].startswith("the network saw 4 of 20 frames; ")


@pytest.mark.parametrize(
    ("beliefs", "words"),
    [
        ([0.6, 0.62], "followed well (trusted to 61%)"),
        ([0.5, 0.55], "followed fairly well (trusted to 52%)"),
        ([0.3, 0.4], "followed badly (trusted to 35%); let it see more of them"),
    ],
)
def test_belief_is_told_in_words(capsys, beliefs, words):
    run = [answer(0), *(answer(index, 0, belief=each) for index, each in enumerate(beliefs, 1))]
    assert finished(capsys, run)[0][1] == f"the network saw 1 of 3 frames; the motion to the others was {words}"


def test_labels_have_an_age_of_their_own(capsys):
    out, err = finished(capsys, [answer(index, 0 if index else None) for index in range(5)], live=True)
    p99 = np.percentile([20, 120, 220, 320, 420], 99)
    assert out[2] == "age from a frame's coming to its answer: 20 ms (median), 20 ms (99 %)"
    assert out[3] == f"age of the labels, from frames that the network saw: 220 ms (median), {p99:.0f} ms (99 %)"
    assert err == ""


def test_old_labels_are_warned_of(capsys):
    run = [answer(index, 0 if index else None, step_s=0.4) for index in range(5)]
    assert "warning: labels are old, 0.8 s in the median" in finished(capsys, run, live=True)[1]
    assert finished(capsys, run, live=True, still=True)[1] == ""  # nothing moves there
    assert finished(capsys, run)[1] == ""  # a file waits


def test_advice_comes_last(capsys):
    out, _ = finished(capsys, [answer(0), answer(1)], advice="run faster")
    assert out == ["2 frames of street", "run faster"]
