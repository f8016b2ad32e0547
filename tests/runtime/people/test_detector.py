import numpy as np
import pytest

from sfpp.runtime import BackendError, ContractError, InputSpec, MediaError, ModelFileError, UsageError
from sfpp.runtime.people import OnnxDetector
from sfpp.runtime.people.detector import boxes_in_frame, letterboxed
from sfpp.runtime.people.detector_output import STYLES, style_of_output
from tests.runtime.people.detector_files import anchor_count, float_model, write_detector, yolov8_output, yolox_output

SIZE_HW = (96, 160)
FRAMES_HW = [(480, 640), (640, 360), (96, 160), (50, 40), (1000, 100)]
# Shares of the frame: left, top, width, height.
PEOPLE = [(0.1, 0.2, 0.3, 0.5), (0.55, 0.05, 0.2, 0.9), (0.7, 0.5, 0.3, 0.5)]


def in_frame(frame_hw, people=PEOPLE):
    height, width = frame_hw
    return np.array([(x * width, y * height, w * width, h * height) for x, y, w, h in people])


def in_model(boxes_xywh, frame_hw, size_hw, *, centered):
    """The detectors' own rule: one scale for both axes, the rest of the input is padding."""
    scale = min(size_hw[0] / frame_hw[0], size_hw[1] / frame_hw[1])
    rest_y, rest_x = (side - round(length * scale) for side, length in zip(size_hw, frame_hw, strict=True))
    shift_x, shift_y = (rest_x // 2, rest_y // 2) if centered else (0, 0)
    return [
        ((x + w / 2) * scale + shift_x, (y + h / 2) * scale + shift_y, w * scale, h * scale)
        for x, y, w, h in boxes_xywh
    ]


def output_for(kind, boxes_cxcywh, size_hw=SIZE_HW, **options):
    if kind == "yolov8":
        return yolov8_output(boxes_cxcywh, size_hw, **options)
    return yolox_output(boxes_cxcywh, size_hw, decoded=kind == "yolox-decoded", **options)


KINDS = ["yolov8", "yolox", "yolox-decoded"]


@pytest.mark.parametrize("frame_hw", FRAMES_HW)
@pytest.mark.parametrize("kind", KINDS)
def test_known_boxes_come_back_in_frame_pixels(tmp_path, kind, frame_hw):
    expected = in_frame(frame_hw)
    output = output_for(kind, in_model(expected, frame_hw, SIZE_HW, centered=kind == "yolov8"), scores=[0.6, 0.9, 0.7])
    detector = OnnxDetector(write_detector(tmp_path / "d.onnx", output, size_hw=SIZE_HW))
    found = detector.find(np.zeros((*frame_hw, 3), np.uint8))
    # The frame's size in the model is whole pixels, which stretches it by up to half of one.
    tolerance = 0.6 * max(frame_hw[0] / SIZE_HW[0], frame_hw[1] / SIZE_HW[1])
    np.testing.assert_allclose(found.boxes_xywh, expected[[1, 2, 0]], atol=tolerance)
    np.testing.assert_allclose(found.scores, [0.9, 0.7, 0.6], rtol=1e-5)
    assert found.boxes_xywh.dtype == found.scores.dtype == np.float32
    assert f"({kind.partition('-')[0]} style, " in detector.description
    detector.close()


@pytest.mark.parametrize("kind", KINDS)
def test_only_sure_people_and_each_once(tmp_path, kind):
    boxes = [(50, 40, 30, 60), (51, 41, 30, 60), (120, 50, 20, 40), (20, 50, 20, 40)]
    people = output_for(kind, boxes, scores=[0.8, 0.85, 0.39, 0.41])
    detector = OnnxDetector(write_detector(tmp_path / "d.onnx", people, size_hw=SIZE_HW))
    found = detector.find(np.zeros((*SIZE_HW, 3), np.uint8))
    np.testing.assert_allclose(found.boxes_xywh, [(36, 11, 30, 60), (10, 30, 20, 40)], atol=1e-3)
    cars = output_for(kind, boxes, class_index=2)
    detector = OnnxDetector(write_detector(tmp_path / "d.onnx", cars, size_hw=SIZE_HW))
    assert detector.find(np.zeros((*SIZE_HW, 3), np.uint8)).boxes_xywh.shape == (0, 4)


def test_boxes_are_cut_to_the_frame(tmp_path):
    boxes = [(0, 40, 30, 60), (150, 90, 30, 60), (500, 40, 10, 10)]
    detector = OnnxDetector(write_detector(tmp_path / "d.onnx", yolov8_output(boxes, SIZE_HW), size_hw=SIZE_HW))
    found = detector.find(np.zeros((*SIZE_HW, 3), np.uint8))
    np.testing.assert_allclose(found.boxes_xywh, [(0, 10, 15, 60), (135, 60, 25, 36)], atol=1e-3)


@pytest.mark.parametrize(("kind", "expected"), [("yolov8", 0.8), ("yolox", 0.5)])
def test_colors_reach_the_model_as_the_style_wants(tmp_path, kind, expected):
    """YOLOX takes blue first, 0 to 255; YOLOv8 red first, 0 to 1: the middle pixel's first channel weighs the score."""
    output = output_for("yolox-decoded" if kind == "yolox" else kind, [(80, 48, 40, 40)], scores=[1.0])
    if kind == "yolox":
        output[..., 4:] *= np.sqrt(0.5)  # of objectness times class
    path = write_detector(tmp_path / "d.onnx", output, size_hw=SIZE_HW, pixel=(48, 80))
    frame = np.full((*SIZE_HW, 3), (1, 0, 204), np.uint8)
    found = OnnxDetector(path).find(frame)
    np.testing.assert_allclose(found.scores, [expected], rtol=1e-5)


def slow_letterbox(image, size_hw, *, centered):
    height, width = (
        min(side, round(length * min(s / n for s, n in zip(size_hw, image.shape, strict=False))))
        for side, length in zip(size_hw, image.shape, strict=False)
    )
    top, left = ((size_hw[0] - height) // 2, (size_hw[1] - width) // 2) if centered else (0, 0)
    canvas = np.full((*size_hw, 3), 114.0)
    for row in range(height):
        for column in range(width):
            canvas[top + row, left + column] = image[row * image.shape[0] // height, column * image.shape[1] // width]
    return canvas


@pytest.mark.parametrize("frame_hw", [(12, 40), (48, 20), (24, 32)])
@pytest.mark.parametrize("style", ["yolox", "yolov8"])
def test_letterbox_against_a_slow_one(style, frame_hw):
    image = np.zeros((*frame_hw, 3), np.uint8)
    image[: frame_hw[0] // 2] = (10, 20, 30)
    image[:, frame_hw[1] // 2 :] += np.uint8(100)
    tensor, placement = letterboxed(image, STYLES[style], InputSpec("x", 24, 32, layout="NCHW", dtype="float32"))
    expected = slow_letterbox(image, (24, 32), centered=style == "yolov8")
    if style == "yolov8":
        expected = expected[..., ::-1] / 255
    assert tensor.shape == (1, 3, 24, 32)
    assert tensor.dtype == np.float32
    # Only at edges do linear and nearest differ.
    assert np.isclose(tensor[0].transpose(1, 2, 0), expected).all(axis=-1).mean() > 0.75
    corner = boxes_in_frame(np.array([[placement.left, placement.top, placement.width, placement.height]]), placement)
    np.testing.assert_allclose(corner, [[0, 0, frame_hw[1], frame_hw[0]]], atol=1e-4)


def test_any_size_becomes_the_usual_one_and_fp16_is_taken(tmp_path):
    output = yolov8_output([(320, 320, 100, 200)], (640, 640), classes=1)
    detector = OnnxDetector(write_detector(tmp_path / "d.onnx", output, size_hw=None, symbolic=True, dtype=np.float16))
    found = detector.find(np.zeros((640, 640, 3), np.uint8))
    np.testing.assert_allclose(found.boxes_xywh, [(270, 220, 100, 200)])
    assert detector.description.startswith(
        "d.onnx (yolov8 style, 640x640 RGB 0 to 1, class 0, as its classes have no names) in"
    )


def test_the_exporters_size_is_taken_where_any_would_do(tmp_path):
    path = write_detector(
        tmp_path / "d.onnx",
        yolov8_output([CENTER], SIZE_HW),
        size_hw=None,
        symbolic=True,
        facts={"imgsz": "[96, 160]"},
    )
    assert boxes_found(path) == [(*BOX, 0.9)]


def test_masks_behind_the_classes_are_passed_over(tmp_path):
    output = np.concatenate([yolov8_output([CENTER], SIZE_HW, classes=2), np.ones((1, 32, 315))], axis=1)
    prototypes, facts = np.zeros((1, 32, 24, 40)), {"names": "['person', 'car']"}
    path = write_detector(tmp_path / "d.onnx", output, prototypes, size_hw=SIZE_HW, facts=facts)
    assert boxes_found(path) == [(*BOX, 0.9)]


def test_of_several_outputs_the_fitting_one_is_taken(tmp_path):
    other, output = np.zeros((1, 32, 24, 40)), yolov8_output([(80, 48, 40, 40)], SIZE_HW)
    detector = OnnxDetector(write_detector(tmp_path / "d.onnx", other, output, size_hw=SIZE_HW))
    assert len(detector.find(np.zeros((*SIZE_HW, 3), np.uint8)).scores) == 1


def test_metadata_win_over_the_style(tmp_path):
    output = yolov8_output([(80, 48, 40, 40)], SIZE_HW, class_index=2, scores=[1.0], classes=3)
    metadata = {"style": "yolov8", "person_class": 2, "color_order": "BGR", "std": [100, 1, 1], "mean": [50, 0, 0]}
    path = write_detector(tmp_path / "d.onnx", output, size_hw=SIZE_HW, metadata=metadata, pixel=(48, 80))
    frame = np.full((*SIZE_HW, 3), (110, 0, 0), np.uint8)
    np.testing.assert_allclose(OnnxDetector(path).find(frame).scores, [0.6], rtol=1e-5)


def test_metadata_say_whether_boxes_are_decoded(tmp_path):
    """All anchors but one give zeros, which alone look relative."""
    output = np.zeros((1, anchor_count(SIZE_HW), 6), np.float32)
    output[0, 43] = (4, 3, 1, 2, 1, 0.9)  # column 3, row 2 of the finest grid
    relative = ((4 + 3) * 8 - np.e * 4, (3 + 2) * 8 - np.e**2 * 4, np.e * 8, np.e**2 * 8)
    for decoded, box in [(True, (3.5, 2, 1, 2)), (False, relative), (None, relative)]:
        metadata = {"style": "yolox", "decoded": decoded}
        detector = OnnxDetector(write_detector(tmp_path / "d.onnx", output, size_hw=SIZE_HW, metadata=metadata))
        found = detector.find(np.zeros((*SIZE_HW, 3), np.uint8))
        np.testing.assert_allclose(found.boxes_xywh, [box], rtol=1e-5)


def test_styles_by_shape():
    anchors = 8400
    size_hw = (640, 640)
    told = {
        (1, anchors, 85): "yolox",
        (1, anchors, 6): "yolox",
        (1, 84, anchors): "yolov8",
        (1, 5, anchors): "yolov8",
        (1, 56, anchors): "yolov8",
        (1, 25200, 85): "yolov5",
        (1, 300, 6): "yolov10",
        (1, 4, anchors): None,
        (1, anchors, 5): None,
        (2, 84, anchors): None,
        (84, anchors): None,
    }
    assert {shape: style_of_output(shape, size_hw) for shape in told} == told
    assert style_of_output((1, 84, anchors), (320, 320)) is None
    assert style_of_output((1, 84, anchors + 100), (640, 640)) == "yolov8"  # with a fourth grid
    assert style_of_output((1, 300, 57), (640, 640)) is None
    assert style_of_output((1, 300, 57), (640, 640), classes=1, more=True) == "yolov10"
    assert style_of_output((1, 300, 84), (640, 640), classes=80) == "rtdetr"


@pytest.mark.parametrize(
    ("metadata", "error", "words"),
    [
        ("{", ContractError, r"the detector's contract \('sfpp.detector'\) in d.onnx is not valid JSON"),
        ("[]", ContractError, r"is \[\], expected a JSON object with the fields style, person_class"),
        ({"style": "yolov8", "colour": "RGB"}, ContractError, "expected a JSON object with the fields"),
        ({"person_class": 0}, ContractError, "has the style None, expected one of yolox, yolov5, yolov8"),
        ({"style": "yolov9"}, ContractError, "has the style 'yolov9'"),
        ({"style": "yolov8", "mean": [1, 2]}, ContractError, "mean has 2 values, expected 3"),
        ({"style": "yolov8", "std": [0, 1, 1]}, ContractError, "std positive"),
        ({"style": "yolov8", "pad_value": 256}, ContractError, "pad_value 0 to 255"),
        ({"style": "yolov8", "person_class": 80}, ModelFileError, "has 80 classes, but its person_class is 80"),
        ({"style": "yolox"}, ModelFileError, r"gives output0 1x84x315 .* expected 1x315x\(5 \+ classes\) as YOLOX"),
    ],
)
def test_metadata_that_cannot_be_meant(tmp_path, metadata, error, words):
    path = write_detector(tmp_path / "d.onnx", yolov8_output([], SIZE_HW), size_hw=SIZE_HW, metadata=metadata)
    with pytest.raises(error, match=words):
        OnnxDetector(path)


def test_files_that_are_no_detector(tmp_path):
    with pytest.raises(ModelFileError, match="is not a file; give a person detector as an ONNX file"):
        OnnxDetector(tmp_path / "nothing.onnx")
    (tmp_path / "text.onnx").write_text("text")
    with pytest.raises(ModelFileError, match="cannot be opened as an ONNX model"):
        OnnxDetector(tmp_path / "text.onnx")
    with pytest.raises(ModelFileError, match=r"takes x: float32 1x8, expected one input of floating"):
        OnnxDetector(float_model(tmp_path / "floats.onnx"))
    path = write_detector(tmp_path / "end2end.onnx", np.zeros((1, 300, 7)), size_hw=SIZE_HW)
    with pytest.raises(ModelFileError, match=r"gives output0 1x300x7 for an input 160 wide .* 1xNx6 as YOLOv10 gives"):
        OnnxDetector(path)
    path = write_detector(tmp_path / "turned.onnx", np.zeros((1, 6, 315)), size_hw=SIZE_HW, facts={"task": "obb"})
    with pytest.raises(ModelFileError, match="is a model for the task 'obb', expected one of detect, segment, pose"):
        OnnxDetector(path)


def test_nan_and_what_is_no_image(tmp_path):
    output = yolov8_output([(80, 48, 40, 40)], SIZE_HW)
    detector = OnnxDetector(write_detector(tmp_path / "d.onnx", output, size_hw=SIZE_HW))
    with pytest.raises(MediaError, match="the frame is a"):
        detector.find(np.zeros((0, 4, 3), np.uint8))
    output[0, 4, 7] = np.nan
    detector = OnnxDetector(write_detector(tmp_path / "d.onnx", output, size_hw=SIZE_HW))
    with pytest.raises(BackendError, match="gave NaN"):
        detector.find(np.zeros((*SIZE_HW, 3), np.uint8))
    detector.close()
    with pytest.raises(BackendError, match="closed"):
        detector.find(np.zeros((*SIZE_HW, 3), np.uint8))


BOX = (40, 10, 60, 80)  # left, top, width, height
FRAME = np.zeros((*SIZE_HW, 3), np.uint8)
CENTER = (70, 50, 60, 80)


def chosen(*rows, columns=6):
    """(1, 20, columns): rows of what the graph has chosen, and empty ones behind them."""
    values = np.zeros((1, 20, columns))
    values[0, : len(rows)] = rows
    return values


def boxes_found(path, **options):
    detector = OnnxDetector(path, **options)
    found = detector.find(FRAME)
    detector.close()
    rows = np.column_stack([found.boxes_xywh.round(2), found.scores.round(3)]).astype(float)
    return [pytest.approx(tuple(row), abs=1e-3) for row in rows]


@pytest.mark.parametrize("names", ["{0: 'car', 1: 'Person'}", '["car", "person"]', "car,person", "car\nperson\n"])
def test_a_person_is_told_by_the_names_in_the_file(tmp_path, names):
    for seen, expected in ((0, []), (1, [(*BOX, 0.9)])):
        output = yolov8_output([CENTER], SIZE_HW, class_index=seen, classes=2)
        path = write_detector(tmp_path / "d.onnx", output, size_hw=SIZE_HW, facts={"names": names})
        assert boxes_found(path) == expected
    assert "class 1 'Person'" in OnnxDetector(path).description or "class 1 'person'" in OnnxDetector(path).description


@pytest.mark.parametrize(
    ("names", "given", "error", "words"),
    [
        (
            "{0: 'car', 1: 'dog'}",
            None,
            UsageError,
            "the classes 0 'car', 1 'dog', none of them a person by name; say w",
        ),
        ("['people', 'pedestrian']", None, UsageError, "several of them a person by name"),
        ("['car', 'person', 'dog']", None, ModelFileError, "names 3 classes, but its outputs have room for 2"),
        ("['car', 'person']", "cat", UsageError, "and no 'cat'; give --person-class one of them"),
        ("['car', 'person']", 2, UsageError, "and no 2"),
        (None, None, UsageError, "has 2 classes and names none; say which one is a person, with --person-class NUMBER"),
        (None, "person", UsageError, "names no classes, and no 'person'; give --person-class one of them by number"),
        (None, 2, ModelFileError, "has 2 classes, but its person_class is 2"),
    ],
)
def test_which_class_is_a_person_is_asked_for_where_nothing_tells(tmp_path, names, given, error, words):
    facts = None if names is None else {"names": names}
    path = write_detector(tmp_path / "d.onnx", yolov8_output([], SIZE_HW, classes=2), size_hw=SIZE_HW, facts=facts)
    with pytest.raises(error, match=words):
        OnnxDetector(path, person_class=given)


@pytest.mark.parametrize(("names", "given"), [("['car', 'Rider']", "rider"), ("['car', 'dog']", "1"), (None, 1)])
def test_the_class_that_is_said_to_be_a_person_wins(tmp_path, names, given):
    facts = None if names is None else {"names": names}
    output = yolov8_output([CENTER], SIZE_HW, class_index=1, classes=2)
    path = write_detector(tmp_path / "d.onnx", output, size_hw=SIZE_HW, facts=facts, metadata={"style": "yolov8"})
    assert boxes_found(path, person_class=given) == [(*BOX, 0.9)]
    path = write_detector(tmp_path / "e.onnx", chosen((40, 10, 100, 90, 0.8, 1)), size_hw=SIZE_HW, facts=facts)
    assert boxes_found(path, person_class=given) == [(*BOX, 0.8)]


def test_boxes_that_were_chosen_in_the_graph(tmp_path):
    rows = [(40, 10, 100, 90, 0.8, 1), (0, 0, 50, 50, 0.9, 0), (5, 5, 9, 9, 0.3, 1)]
    facts = {"names": "['car', 'person']"}
    path = write_detector(tmp_path / "v10.onnx", chosen(*rows), size_hw=SIZE_HW, facts=facts)
    assert boxes_found(path) == [(*BOX, 0.8)]
    assert "(yolov10 style, 160x96 RGB 0 to 1, class 1 'person')" in OnnxDetector(path).description
    more = [(*row, *range(51)) for row in rows]
    facts["task"] = "pose"
    path = write_detector(tmp_path / "pose.onnx", chosen(*more, columns=57), size_hw=SIZE_HW, facts=facts)
    assert boxes_found(path) == [(*BOX, 0.8)]


def test_boxes_and_classes_in_two_outputs_are_fed_as_rtmdet(tmp_path):
    labels = np.zeros((1, 20), np.int64)
    labels[0, 1] = 7
    boxes = chosen((40, 10, 100, 90, 0.8), (0, 0, 50, 50, 0.9), columns=5)
    for folder, fed in (("rtmdet", "BGR normalized"), ("yolox_m", "BGR 0 to 255")):
        (tmp_path / folder).mkdir()
        path = write_detector(
            tmp_path / folder / "end2end.onnx", boxes, labels, size_hw=SIZE_HW, named=("dets", "labels")
        )
        assert boxes_found(path) == [(*BOX, 0.8)]
        assert f"(rtmdet style, 160x96 {fed}, class 0, as its classes have no names)" in OnnxDetector(path).description


@pytest.mark.parametrize("frame_hw", [(96, 160), (200, 100)])
def test_rtdetr_gets_a_stretched_frame_and_the_inputs_size(tmp_path, frame_hw):
    """Its boxes are shares of the size that it is told, so that any other size would show."""
    labels = np.full((1, 20), 2)
    shares = np.zeros((1, 20, 4))
    shares[0, 0], labels[0, 0] = (0.25, 0.5, 0.75, 1.0), 0
    scores = np.zeros((1, 20))
    scores[0, :2] = 0.8
    names = ("boxes", "labels", "scores")
    path = write_detector(tmp_path / "d.onnx", shares, labels, scores, size_hw=SIZE_HW, named=names, sizes=True)
    found = OnnxDetector(path).find(np.zeros((*frame_hw, 3), np.uint8))
    height, width = frame_hw
    np.testing.assert_allclose(found.boxes_xywh, [(width / 4, height / 2, width / 2, height / 2)], rtol=1e-5)
    path = write_detector(tmp_path / "e.onnx", shares, labels, scores, size_hw=SIZE_HW, named=names)
    with pytest.raises(ModelFileError, match="1xN and 1xN as RT-DETR gives, which takes the frame's size"):
        OnnxDetector(path)


def test_rtdetr_in_one_output_gives_shares_of_the_frame(tmp_path):
    output = np.zeros((1, 20, 7))
    output[0, 3] = (0.5, 0.5, 0.5, 1.0, 0.1, 0.7, 0.2)
    facts = {"names": "['car', 'person', 'dog']"}
    path = write_detector(tmp_path / "d.onnx", output, size_hw=SIZE_HW, facts=facts)
    found = OnnxDetector(path).find(np.zeros((200, 100, 3), np.uint8))
    np.testing.assert_allclose(found.boxes_xywh, [(25, 0, 50, 200)], rtol=1e-5)


def test_yolov5_gives_pixels_and_three_anchors_a_cell(tmp_path):
    output = np.zeros((1, 3 * anchor_count(SIZE_HW), 6))
    output[0, 500] = (*CENTER, 0.9, 0.9)
    path = write_detector(tmp_path / "d.onnx", output, size_hw=SIZE_HW)
    assert boxes_found(path) == [(*BOX, 0.81)]


def test_boxes_relative_to_the_input_are_told_from_pixels(tmp_path):
    output = yolov8_output([(70 / 160, 50 / 96, 60 / 160, 80 / 96)], SIZE_HW)
    assert boxes_found(write_detector(tmp_path / "d.onnx", output, size_hw=SIZE_HW)) == [(*BOX, 0.9)]


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (
            yolov8_output([CENTER], SIZE_HW, scores=[3.2]),
            "gave scores from 0 to 3.2, expected 0 to 1; export it with the s",
        ),
        (yolov8_output([CENTER], SIZE_HW, scores=[-4]), "gave scores from -4 to 0, expected 0 to 1"),
        (chosen((40, 10, 100, 90, 1.0, 0.8)), "numbers are in no known order: expected left, top, right, bottom"),
        (chosen((100, 90, 40, 10, 0.8, 0)), "numbers are in no known order"),
    ],
    ids=["logits", "negative-logits", "class-before-score", "corners-swapped"],
)
def test_numbers_that_cannot_be_meant_are_refused(tmp_path, output, words):
    with pytest.raises(BackendError, match=words):
        OnnxDetector(write_detector(tmp_path / "d.onnx", output, size_hw=SIZE_HW))
