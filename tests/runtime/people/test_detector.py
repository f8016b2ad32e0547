import numpy as np
import pytest

from sfpp.runtime import BackendError, ContractError, InputSpec, MediaError, ModelFileError
from sfpp.runtime.people import OnnxDetector
from sfpp.runtime.people.detector import STYLES, boxes_in_frame, letterboxed, style_of_output
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
    assert detector.description.startswith("d.onnx (yolov8 style, 640x640) in ONNX Runtime")


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
        (1, 25200, 85): None,
        (1, 300, 6): None,
        (1, 4, anchors): None,
        (1, anchors, 5): None,
        (2, 84, anchors): None,
        (84, anchors): None,
    }
    assert {shape: style_of_output(shape, size_hw) for shape in told} == told
    assert style_of_output((1, 84, anchors), (320, 320)) is None


@pytest.mark.parametrize(
    ("metadata", "error", "words"),
    [
        ("{", ContractError, r"the detector's contract \('sfpp.detector'\) in d.onnx is not valid JSON"),
        ("[]", ContractError, r"is \[\], expected a JSON object with the fields style, person_class"),
        ({"style": "yolov8", "colour": "RGB"}, ContractError, "expected a JSON object with the fields"),
        ({"person_class": 0}, ContractError, "has the style None, expected one of yolox, yolov8"),
        ({"style": "yolov9"}, ContractError, "has the style 'yolov9'"),
        ({"style": "yolov8", "mean": [1, 2]}, ContractError, "mean has 2 values, expected 3"),
        ({"style": "yolov8", "std": [0, 1, 1]}, ContractError, "std positive"),
        ({"style": "yolov8", "pad_value": 256}, ContractError, "pad_value 0 to 255"),
        ({"style": "yolov8", "person_class": 80}, ModelFileError, "has 80 classes, but its contract has the person_cl"),
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
    path = write_detector(tmp_path / "end2end.onnx", np.zeros((1, 300, 6)), size_hw=SIZE_HW)
    with pytest.raises(ModelFileError, match=r"gives output0 1x300x6 for an input 160 wide .* without non-maximum"):
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
