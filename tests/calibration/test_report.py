"""The report says everything that was found, and nothing that was not."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from sfpp.calibration.report import clipped_share, drop_tone, not_measured, report_page, write_report
from sfpp.calibration.results import Kept, LayerHistogram, Recommendation
from sfpp.calibration.summary import budget_verdict, finding, summary_lines
from sfpp.runtime.errors import SfppError
from sfpp.tooling.label_images import TruthSummary
from tests.calibration.report_examples import (
    CLASSES,
    EXAMPLES,
    HOSTILE,
    IOU,
    JOINTS,
    LOST_BY_INT8,
    hostile,
    many_classes,
    pictures,
    pose,
    refused,
    segmentation,
    without_truth,
)
from tests.tooling.page_reader import assert_sound, picture_in, read_page

DASH = "\u2013"


def page_of(report):
    return assert_sound(report_page(report))


def section_of(report, heading):
    sections = [each for each in page_of(report).all("section") if each.all("h2") and each.all("h2")[0].text == heading]
    assert len(sections) == 1, heading
    return sections[0]


def has_section(report, heading):
    return heading in [each.text for each in page_of(report).all("h2")]


def rows_in(part):
    """The texts of each row, without signs and small lines below."""
    return [[figure_of(cell) for cell in row.children] for body in part.all("tbody") for row in body.all("tr")]


def figure_of(cell):
    skipped = {"sign", "note", "chip"}
    parts = (each if isinstance(each, str) else "" if each.classes & skipped else each.text for each in cell.children)
    return "".join(parts).strip()


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_a_page_is_sound_and_has_no_figure_that_is_none(example):
    page = page_of(example())
    # Piece by piece: in the text of the whole page, neighbors would run into one word.
    pieces = [child for each in page.all("body")[0].all() for child in each.children if isinstance(child, str)]
    words = {word for piece in pieces for word in re.findall(r"\w+", piece)}
    assert not words & {"nan", "NaN", "None", "inf", "null"}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_the_same_report_gives_the_same_bytes(example, tmp_path):
    for name in ("a.html", "b.html"):
        write_report(example(), tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_the_folder_of_a_report_is_made(tmp_path):
    write_report(segmentation(), tmp_path / "new" / "report.html")
    assert (tmp_path / "new" / "report.html").stat().st_size > 1000


def test_a_report_cannot_go_where_a_file_is_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SfppError, match="is no folder"):
        write_report(segmentation(), tmp_path / "file" / "report.html")


def test_the_decision_comes_first():
    head = page_of(segmentation()).all("div", of_class="headline")[0]
    assert [each.text for each in head.all("p")] == ["Use INT8 here", segmentation().recommendation.text]


@pytest.mark.parametrize(
    ("precision", "made", "expected"),
    [
        ("fp32", ("fp32", "fp16", "int8"), "Keep FP32 here"),
        ("fp16", ("fp32", "fp16", "int8"), "Use FP16 here, not INT8"),
        ("fp16", ("fp32", "fp16"), "Use FP16 here"),
        ("int8", ("fp32", "int8"), "Use INT8 here"),
    ],
)
def test_the_finding_names_what_to_use(precision, made, expected):
    whole = segmentation()
    files = tuple(file for file in whole.files if file.precision in made)
    report = replace(whole, files=files, recommendation=Recommendation(precision, "because"))
    assert finding(report) == expected
    assert expected in page_of(report).text


def test_key_figures_are_those_of_the_recommended_file():
    tiles = [
        [each.text for each in tile.children]
        for tile in page_of(segmentation()).all("dl", of_class="tiles")[0].children
    ]
    assert tiles == [
        ["mIoU", "61.92\u00a0%", "1.35 points below FP32"],
        ["Labels as FP32's", "98.20\u00a0%", "233 frames"],
        ["Latency", "17.0\u00a0ms", "openvino, 1.88\u00d7 FP32 there"],
        ["File", "4.3\u00a0MB", "29\u00a0% of FP32's"],
    ]


def test_the_verdict_on_the_limit_is_plain():
    assert budget_verdict(segmentation()) == (
        "INT8 keeps to the limit.",
        "INT8 loses 1.35 points of mIoU; the limit is 1.50 points of mIoU.",
    )
    assert budget_verdict(refused()) == (
        "INT8 does not keep to the limit.",
        "INT8 loses 4.83 points of mIoU; the limit is 1.00 points of mIoU.",
    )
    assert page_of(segmentation()).all("div", of_class="notice")[0].classes == {"notice", "good"}
    assert page_of(refused()).all("div", of_class="notice")[0].classes == {"notice", "bad"}


def test_a_limit_without_a_file_or_a_verdict_is_said():
    title, reason = budget_verdict(replace(refused(), files=refused().files[:2], budget_held=None))
    assert title == "Nothing can be said on the limit for INT8."
    assert reason.startswith("No INT8 file was made; the limit is 1.00")
    gaining = replace(segmentation(), files=(replace(segmentation().files[2], drop=-0.2),))
    assert budget_verdict(gaining)[1].startswith("INT8 gains 0.20 points of mIoU;")
    assert not page_of(replace(segmentation(), max_drop=None)).all("div", of_class="notice")


def test_every_file_has_a_row_of_accuracy_and_speed():
    part = section_of(segmentation(), "Accuracy and speed")
    titles = [cell.children[0] for cell in part.all("thead")[0].all("tr")[1].children]
    assert titles == ["file", "mIoU", "drop", "agreement", "boundary F", "size", *("time", "speed") * 2]
    assert rows_in(part) == [
        ["FP32", "63.27", "0.00", "100.00", "61.27", "15.0", "48.2", DASH, "31.9", DASH],
        ["FP16", "63.26", "0.01", "99.96", "61.26", "7.6", "52.8", "0.91", "31.1", "1.03"],
        ["as a GPU stores it", "63.19", "0.08", "99.87", "61.19", "", "", "", "", ""],
        ["INT8", "61.92", "1.35", "98.20", "59.84", "4.3", "29.4", "1.64", "17.0", "1.88"],
    ]
    strong = part.all("tr", of_class="strong")
    assert [figure_of(row.children[0]) for row in strong] == ["INT8"]
    assert "recommended" in strong[0].text
    assert "segformer-b0-fast-480x360.int8.onnx" in strong[0].text


def test_slower_files_and_lost_accuracy_are_marked():
    part = section_of(refused(), "Accuracy and speed")
    tones = [
        [cell.classes & {"good", "warn", "bad"} for cell in row.children] for row in part.all("tbody")[0].all("tr")
    ]
    assert [row[2] for row in tones] == [set(), {"good"}, {"good"}, {"bad"}]
    assert [(row[7], row[9]) for row in tones] == [(set(), set()), ({"warn"}, set()), (set(), set()), ({"warn"},) * 2]
    assert "slower than FP32" in part.text


def test_the_best_figures_are_those_of_files():
    """What rounding would make of one of them is no file that could be used."""
    whole = segmentation()
    fp16 = replace(whole.files[1], rounded=replace(whole.files[1].accuracy, mean_iou=0.99, boundary_f=0.99))
    part = section_of(replace(whole, files=(whole.files[0], fp16, whole.files[2])), "Accuracy and speed")
    starred = [
        [index for index, cell in enumerate(row.children) if "best" in cell.classes]
        for row in part.all("tbody")[0].all("tr")
    ]
    assert starred == [[1, 4], [], [], [5, 6, 8]]


def test_without_truth_the_drop_is_what_differs_and_failures_are_told():
    part = section_of(without_truth(), "Accuracy and speed")
    assert rows_in(part)[1:] == [
        ["FP16", "0.04", "99.96", "61.26", "7.6", "52.8", "0.91", "31.1", "1.03"],
        ["INT8", "1.80", "98.20", "59.84", "4.3", "29.4", "1.64", "failed", DASH],
    ]
    assert "% of labels" in part.all("thead")[0].text
    assert "INT8 on openvino: no engine for node /a/MatMul" in part.text


@pytest.mark.parametrize(
    ("drop", "limit", "tone"),
    [
        *[(-1.0, None, "good"), (0.5, None, "good"), (0.51, None, "warn"), (2.0, None, "warn"), (2.1, None, "bad")],
        *[(3.0, 3.0, "good"), (3.1, 3.0, "bad"), (0.1, 0.0, "bad")],
    ],
)
def test_a_drop_is_judged_by_the_users_limit_if_there_is_one(drop, limit, tone):
    assert drop_tone(drop, limit) == tone


def test_classes_are_sorted_by_what_they_lose_and_large_losses_marked():
    part = section_of(segmentation(), "IoU by class")
    rows = rows_in(part)
    order = sorted(range(len(CLASSES)), key=lambda index: -LOST_BY_INT8[index])
    assert [row[0] for row in rows] == [CLASSES[index] for index in order]
    assert [row[1] for row in rows] == [f"{100 * IOU[index]:.2f}" for index in order]
    losses = [f"{100 * LOST_BY_INT8[index]:.2f}".replace("-", "\u2212") for index in order]
    assert [row[5] for row in rows] == losses
    tones = [row.children[5].classes - {"number"} for row in part.all("tbody")[0].all("tr")]
    assert tones == [{"bad"}, {"bad"}, {"warn"}, {"warn"}] + [set()] * 7


def test_a_class_that_does_not_occur_comes_last_with_dashes():
    rows = rows_in(section_of(many_classes(), "IoU by class"))
    assert len(rows) == 150
    assert {row[0].split()[2] for row in rows} == {str(index) for index in range(150)}
    absent = [row for row in rows if row[1] == DASH]
    assert absent == rows[-15:]
    assert {cell for row in absent for cell in row[1:]} == {DASH}
    lost = next(row for row in rows if row[0].startswith("class number 1 "))  # INT8 does not have it
    assert lost[1] != DASH
    assert lost[4:] == [DASH, DASH]


def test_a_long_list_of_classes_is_folded_after_those_that_matter():
    part = section_of(many_classes(), "IoU by class")
    (rest,) = part.all("details")
    assert rest.all("summary")[0].text == "Show the other 126"
    assert len(rows_in(rest)) == 126


def test_keypoints_are_classes_of_a_pose_model():
    assert {row[0] for row in rows_in(section_of(pose(), "PCK by keypoint"))} == set(JOINTS)
    part = section_of(pose(), "Accuracy and speed")
    assert rows_in(part)[3][:4] == ["INT8", "83.40", "0.60", "98.80"]
    assert "boundary" not in part.text
    assert "labels" not in page_of(pose()).text.lower()


def test_hostile_names_are_shown_and_do_nothing():
    text = page_of(hostile()).text
    shown = '<script>alert("x")</script>\'&\ufffd\ufffd\ufffd'
    for heading in ("IoU by class", "Sensitivity to INT8", "What stays in higher precision", "Notes", "Frames"):
        assert shown in section_of(hostile(), heading).text
    assert HOSTILE not in text
    assert "<script" not in report_page(hostile())


def test_parts_are_bars_and_those_kept_out_are_said():
    part = section_of(segmentation(), "Sensitivity to INT8")
    rows = rows_in(part)
    assert [row[0] for row in rows] == [part.name for part in segmentation().sensitivity]
    assert rows[0][2:] == ["2.31\u00a0%", "0.41\u00a0%", "6"]
    assert [chip.text for chip in part.all("span", of_class="chip")] == ["kept out of INT8"] * 2
    widths = [float(bar.attributes["width"].rstrip("%")) for bar in part.all("rect")]
    expected = [100 * part.disagreement / 2.31 for part in segmentation().sensitivity]
    np.testing.assert_allclose(widths, expected, atol=0.01)  # also of those that are folded away


def test_a_part_that_no_frame_tells_of_has_a_dash_and_the_others_keep_their_scale():
    first, *others = segmentation().sensitivity
    unknown = replace(first, disagreement=float("nan"))
    part = section_of(replace(segmentation(), sensitivity=(unknown, *others), suspects=()), "Sensitivity to INT8")
    assert rows_in(part)[0][2] == "\u2013"
    largest = max(each.disagreement for each in others)
    widths = [float(bar.attributes["width"].rstrip("%")) for bar in part.all("rect")]
    np.testing.assert_allclose(
        widths[-len(others) :], [100 * each.disagreement / largest for each in others], atol=0.01
    )


def test_histograms_say_what_is_clipped():
    part = section_of(segmentation(), "Layers that lose most by rounding")
    assert [each.text for each in part.all("code")] == [each.node for each in segmentation().histograms]
    assert len(part.all("svg")) == 6
    assert "0.30\u00a0% of their mean square" in part.text


def test_the_clipped_share_is_that_of_bins_above_the_threshold():
    counts = np.array([10, 20, 30, 40])
    layer = LayerHistogram("node", counts, largest=8.0, threshold=4.0, error=0.0)
    assert clipped_share(layer) == pytest.approx(0.7)
    assert clipped_share(replace(layer, threshold=8.0)) == 0.0
    assert clipped_share(replace(layer, threshold=5.1)) == pytest.approx(0.4)
    assert clipped_share(replace(layer, counts=np.zeros(4, np.int64))) is None


def test_what_is_kept_is_listed_by_file_and_reason():
    rows = rows_in(section_of(segmentation(), "What stays in higher precision"))
    assert [row[:3] for row in rows] == [
        ["FP16", "overflows in float16", "8"],
        ["FP16", "the library has no float16 kernel for it", "1"],
        ["INT8", "alone in INT8 it changes 2.31 % of the predictions", "1"],
        ["INT8", "alone in INT8 it changes 0.94 % of the predictions", "1"],
    ]
    for kept in segmentation().files[1].kept[:8]:
        assert kept.name in rows[0][3]
    many = replace(segmentation().files[2], kept=tuple(Kept(f"n{i}", f"reason {i}") for i in range(40)))
    part = section_of(replace(segmentation(), files=(many,)), "What stays in higher precision")
    assert [row[3] for row in rows_in(part)] == [f"n{i}" for i in range(40)]
    assert part.all("details")


def test_pictures_are_in_the_page_with_their_percentages():
    part = section_of(segmentation(), "Where predictions change")
    shown = [picture_in(image.attributes["src"]) for image in part.all("img")]
    assert [image.shape for image in shown] == [each.image_bgr.shape for each in pictures()]
    captions = [each.text for each in part.all("figcaption")]
    assert captions == [
        "FP16: 12.50\u00a0% of the labels differ0001TP_008550.jpg",
        "INT8: 37.50\u00a0% of the labels differ0001TP_008550.jpg",
    ]


def test_frames_machine_time_and_notes_are_told():
    frames = section_of(segmentation(), "Frames").text
    for part in ("data/camvid/train/images", "128 frames", "233 other frames", "diverse, seed 0", "4be1" * 16):
        assert part in frames
    machine = section_of(segmentation(), "Model and machine").text
    for part in ("i7-1360P", "usable cores4", "31.1 GiB", "avx2, avx_vnni", "openvino2025.4.0", "9f2c" * 16):
        assert part in machine
    assert f"numpy{DASH}" in machine
    assert "6 min 20 s in all" in machine
    assert "near ties" in section_of(segmentation(), "Notes").text


def test_evaluating_on_the_frames_of_calibration_is_warned_of():
    warned = page_of(without_truth()).all("div", of_class="warn")
    assert "Evaluated on the frames that it was calibrated with." in warned[0].text
    assert "64 of the same frames" in section_of(without_truth(), "Frames").text
    assert "calibrated with." not in page_of(segmentation()).text


def test_what_the_label_images_hold_is_told_on_the_page_in_the_summary_and_in_the_data():
    truth = TruthSummary(233, ignored=0.0312, absent=("fence", "car"), notes=("255 is no class and is ignored",))
    report = replace(segmentation(), truth=truth)
    expected = "3.12 % of the pixels ignored; classes that never occur: fence, car"
    frames = section_of(report, "Frames").text
    assert expected in frames
    assert "255 is no class and is ignored" in frames
    assert f"Of the label images: {expected}." in " ".join(summary_lines(report))
    assert json.loads(report.to_json())["truth"]["absent"] == ["fence", "car"]
    assert "label images" not in section_of(segmentation(), "Frames").text


def test_what_was_not_measured_is_said():
    assert not_measured(segmentation()) == []
    assert not has_section(segmentation(), "Not measured")
    lines = not_measured(without_truth())
    assert [line.split(":")[0] for line in lines] == ["mIoU, and IoU by class", "A limit"]
    assert [each.text for each in section_of(without_truth(), "Not measured").all("li")] == lines
    untimed = replace(segmentation(), files=tuple(replace(file, latencies=()) for file in segmentation().files[:1]))
    assert [line.split(":")[0] for line in not_measured(untimed)] == ["FP16", "INT8", "Latency"]


@pytest.mark.parametrize(
    "heading", ["Where predictions change", "Sensitivity to INT8", "Layers that lose most by rounding"]
)
def test_there_is_no_empty_section(heading):
    assert has_section(segmentation(), heading)
    assert not has_section(without_truth(), heading)


def test_the_summary_is_the_table_and_the_decision():
    lines = summary_lines(segmentation())
    assert [re.split(r"  +", line.strip()) for line in lines[:5]] == [
        ["file", "mIoU %", "drop, points", "agree %", "MB", "onnxruntime ms", "openvino ms"],
        ["FP32", "63.27", "-", "100.00", "15.0", "48.2", "31.9"],
        ["FP16", "63.26", "0.01", "99.96", "7.6", "52.8 (0.91x)", "31.1 (1.03x)"],
        ["as a GPU stores it", "63.19", "0.08", "99.87"],
        ["INT8 *", "61.92", "1.35", "98.20", "4.3", "29.4 (1.64x)", "17.0 (1.88x)"],
    ]
    assert len({len(line) for line in (lines[0], lines[1], lines[2], lines[4])}) == 1  # figures end together
    assert " ".join(lines[6:8]) == f"Use INT8 here. {segmentation().recommendation.text}"
    assert lines[-1].startswith("INT8 keeps to the limit.")


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_the_summary_is_short_and_harmless_to_a_terminal(example):
    lines = summary_lines(example())
    assert len(lines) <= 20
    for line in lines:
        assert line.replace("\ufffd", "").isascii()
        assert line.replace("\ufffd", "").isprintable()
        assert not re.search(r"\b(nan|None|inf)\b", line)


def test_the_summary_tells_failures_and_frames_seen_before():
    text = "\n".join(summary_lines(without_truth()))
    assert "failed: INT8 on openvino: no engine for node /a/MatMul" in text
    assert "Evaluated on the frames that it was calibrated with" in text
    lines = summary_lines(replace(hostile(), files=hostile().files * 2))
    assert sum(line.startswith("failed:") for line in lines) == 4
    assert "failed: 3 more, see the report" in lines


def test_a_page_reads_back_as_it_was_built():
    """The reader of these tests finds what is broken, or they would prove nothing."""
    for broken in ("<p><b></p></b>", "<p>", "</p>"):
        with pytest.raises(AssertionError):
            read_page(broken)
    with pytest.raises(AssertionError):
        assert_sound('<!doctype html>\n<html lang="en"><body><h1>a</h1><h3>b</h3></body></html>')
