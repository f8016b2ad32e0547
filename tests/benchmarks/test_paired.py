"""What the accuracy benchmarks share: names of cases, ranges of differences, and cases that are added later."""

import argparse
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import camvid_accuracy, lsp_pck
from benchmarks.paired import (
    RESAMPLES,
    Case,
    Contestant,
    Difference,
    cases_to_run,
    chance_text,
    differences,
    keep,
    seen_by,
)


def share(counts):
    """Return the score of counts (..., 2): right, and all."""
    return counts[..., 0] / counts[..., 1]


def seen(**right):
    """Return the counts of cases in frames of 100 pixels each."""
    return {case: {"counts": np.stack([each, np.full(len(each), 100)], axis=1)} for case, each in right.items()}


def compare(found, block=None):
    frames = len(next(iter(found.values()))["counts"])
    block = np.arange(frames) if block is None else block
    return {(each.case, each.than): each for each in differences(found, {"share": ("counts", share)}, block)}


def test_cases_are_read_from_their_names():
    assert Case.from_text("fast+") == Case("fast+", "fast+", {})
    assert Case.from_text("fast:sized:local@openvino:bf16") == Case(
        "fast:sized:local@openvino:bf16",
        "fast",
        {"size_weighted": True, "matching": "local"},
        backend="openvino",
        precision="bf16",
    )
    assert Case.from_text("fast+:exact").options == {"matching": "exact"}
    assert Case.from_text("hq:share3").options == {"share_matching": 3}
    assert Case.from_text("hq:shareall").options == {"share_matching": 0}
    assert Case.from_text("original:flip").flip_test
    for wrong in ("fast:lokal", "fast:share", "fast:"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"'{wrong}' has the unknown part .*:local or :exact"):
            Case.from_text(wrong)


def test_a_range_is_as_wide_as_theory_says():
    rng = np.random.default_rng(1)
    first = rng.integers(40, 60, 400)
    gain = rng.normal(2, 5, 400).round()
    found = compare(seen(first=first, other=first + gain))["other", "first"]
    assert found.points == pytest.approx(gain.mean())
    half = 1.645 * gain.std() / np.sqrt(400)  # of a mean of 400 that are drawn alone
    assert found.low == pytest.approx(gain.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(gain.mean() + half, abs=0.1 * half)
    assert not found.within_chance


def test_frames_are_paired_and_so_what_they_have_in_common_does_not_count():
    rng = np.random.default_rng(2)
    frames, gain = rng.integers(10, 90, 60), rng.integers(0, 3, 60)
    paired = compare(seen(first=frames, other=frames + gain))["other", "first"]
    apart = compare(seen(first=frames, other=(frames + gain)[rng.permutation(60)]))["other", "first"]
    assert paired.points == apart.points > 0
    assert not paired.within_chance
    assert apart.within_chance
    assert 10 * (paired.high - paired.low) < apart.high - apart.low


def test_frames_that_look_alike_are_drawn_together():
    blocks = np.repeat(np.arange(20), 12)
    gain = np.random.default_rng(3).integers(-20, 21, 20)[blocks]  # the same in all frames of a block
    found = seen(first=np.full(240, 50), other=50 + gain)
    alone, together = compare(found)["other", "first"], compare(found, blocks)["other", "first"]
    assert together.high - together.low == pytest.approx(np.sqrt(12) * (alone.high - alone.low), rel=0.1)


def test_the_last_block_may_be_short_and_counts_by_its_frames():
    blocks = np.array([0, 0, 0, 1])
    found = compare(seen(first=np.zeros(4, int), other=np.array([10, 10, 10, 50])), blocks)["other", "first"]
    assert found.points == 20
    assert found.low == 10  # the first block twice
    assert found.high == 50


def test_ranges_are_the_same_each_time_and_whatever_else_is_compared():
    rng = np.random.default_rng(4)
    found = seen(first=rng.integers(0, 99, 50), other=rng.integers(0, 99, 50), third=rng.integers(0, 99, 50))
    assert compare(found) == compare(found)
    assert (
        compare({case: found[case] for case in ("first", "third")})["third", "first"]
        == compare(found)["third", "first"]
    )
    assert RESAMPLES >= 1000


def test_cases_are_compared_with_the_first_and_within_their_merging():
    cases = ("original", "fast", "fast:local", "fast+", "hq", "hq+@openvino:fp32")
    found = compare(seen(**dict.fromkeys(cases, np.arange(5))))
    others = {case: {than for one, than in found if one == case} for case in cases}
    assert others["original"] == set()
    assert others["fast+"] == {"original", "fast", "fast:local"}
    assert others["fast"] == {"original", "fast+", "fast:local"}
    assert others["hq+@openvino:fp32"] == {"original", "hq"}


def test_what_chance_may_explain_is_told_apart():
    found = [
        Difference("a", "original", "pck", -0.001, -0.5, 0.5),
        Difference("b", "original", "pck", 1.04, 0.2, 1.8),
        Difference("original", "b", "pck", -1.04, -1.8, -0.2),
        Difference("b", "a", "mean_iou", -1.0, -1.8, -0.2),
    ]
    assert [each.text() for each in found] == [
        "0.00 (-0.50..+0.50)",
        "**+1.04** (+0.20..+1.80)",
        "**-1.04** (-1.80..-0.20)",
        "**-1.00** (-1.80..-0.20)",
    ]
    assert chance_text(found).splitlines() == [
        "pck: within chance a to original; beyond it b to original",
        "mean_iou: within chance nothing; beyond it b to a",
    ]


def arguments(folder, *cases, add=False):
    return argparse.Namespace(output=folder / "it.json", cases=[Case.from_text(case) for case in cases], add=add)


def timed(found):
    rng = np.random.default_rng()  # as clocks are
    return {case: {**arrays, "latency_ms": rng.random(len(arrays["counts"]))} for case, arrays in found.items()}


def test_cases_can_be_added_to_what_saw_the_same_frames(tmp_path):
    frames = np.arange(5)
    kept = keep(arguments(tmp_path), timed(seen(**{"original": frames, "fast:local@openvino:fp32": frames + 1})))
    asked = arguments(tmp_path, "fast+", "original", add=True)
    assert [case.name for case in cases_to_run(asked)] == ["original", "fast+"]
    both = keep(asked, timed(seen(**{"original": frames, "fast+": frames + 2})))
    assert list(both) == ["original", "fast:local@openvino:fp32", "fast+"]
    again = keep(asked, timed(seen(**{"original": frames, "hq": frames, "original:flip": frames})))
    assert list(again) == ["original", "original:flip", "fast:local@openvino:fp32", "fast+", "hq"]
    for found in (both, again):
        for name, array in kept["original"].items():
            np.testing.assert_array_equal(found["original"][name], array)
        np.testing.assert_array_equal(found["fast+"]["counts"], both["fast+"]["counts"])


@pytest.mark.parametrize("frames", [np.arange(4), np.arange(5)[::-1]])
def test_cases_that_saw_something_else_are_not_added(tmp_path, frames):
    asked = arguments(tmp_path, "fast", add=True)
    with pytest.raises(SystemExit, match=r"no .*it\.npz to add to"):
        cases_to_run(asked)
    keep(arguments(tmp_path), seen(original=np.arange(5)))
    before = (tmp_path / "it.npz").read_bytes()
    with pytest.raises(SystemExit, match="original differs from what is kept of it"):
        keep(asked, seen(original=frames, fast=frames))
    assert (tmp_path / "it.npz").read_bytes() == before


def test_times_are_relative_to_those_of_the_first_case():
    found = [Contestant(name, lambda frame: frame) for name in ("original", "fast")]
    for frame in range(3):
        assert [each.run(frame) for each in found] == [frame, frame]
    found[0].seen["latency_ms"], found[1].seen["latency_ms"] = [2.0, 4.0, 8.0], [1.0, 3.0, 8.0]
    assert seen_by(found)["fast"]["time_ratio"].tolist() == [0.5, 0.75, 1.0]


def test_frames_of_camvid_are_summed_up():
    truth = np.array([[0, 0, 1, 1, 11, 11]] * 6, np.uint8)
    first, other = np.where(truth == 11, 0, truth), np.zeros_like(truth)
    found = [Contestant(n, SimpleNamespace(contract=SimpleNamespace(classes=("a", "b")))) for n in ("original", "fast")]
    for each, labels in zip(found, (first, other), strict=True):
        each.seen["latency_ms"] = [4.0, 4.0]
        for _ in range(2):
            camvid_accuracy.observe(each, labels, truth, first)
    rows = camvid_accuracy.results(seen_by(found), ("a", "b"))
    assert [row.mean_iou for row in rows] == [1, 0.25]
    assert [row.pixel_accuracy for row in rows] == [1, 0.5]
    assert rows[1].agreement_with_original == pytest.approx(2 / 3)
    assert rows[1].iou_by_class == {"a": 0.5, "b": 0}
    compared = differences(seen_by(found), camvid_accuracy.MEASURES, np.arange(2))
    line = camvid_accuracy.markdown_table(rows, compared).splitlines()[-1]
    assert line.startswith("| `fast` | 25.00% | **-75.00** (-75.00..-75.00) | 0.00% | **-100.00** (")
    plain = [replace(row, boundary_f=None) for row in rows]
    assert camvid_accuracy.markdown_table(plain, []).splitlines()[-1] == "| `fast` | 25.00% | 50.00% | 66.67% | 1.00x |"


def test_crops_of_lsp_are_summed_up():
    right = np.zeros((3, 14), int)
    right[0], right[1, :7] = 1, 1
    hits = np.stack([right, np.ones_like(right)], axis=2)
    hits[2] = 0
    hits[2, 0] = 1
    found = {
        case: {"hits": each, "agreement": np.ones(3), "latency_ms": np.ones(3), "time_ratio": np.ones(3)}
        for case, each in (("original", hits), ("fast", hits * [0, 1]))
    }
    rows = lsp_pck.results(found)
    assert rows[0].pck == pytest.approx(22 / 29)
    assert rows[0].pck_by_joint["wrist"] == pytest.approx(3 / 4)
    assert rows[1].pck == 0
    compared = differences(found, lsp_pck.MEASURES, np.arange(3))
    assert compared[0].points == pytest.approx(-100 * 22 / 29)
    assert lsp_pck.markdown_table(rows, compared).splitlines()[-1].startswith("| `fast` | 0.00% | **-75.86** (-100.00")
