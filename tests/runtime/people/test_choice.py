import json

import cv2
import numpy as np
import pytest

from sfpp.runtime import BackendError, UsageError
from sfpp.runtime.people import BoxesFile, Detections, FirstToFind, FullFrame, HogPeople, OnnxDetector, choose_finder
from tests.runtime.people.detector_files import write_detector, yolov8_output


@pytest.fixture
def with_hog(monkeypatch):
    class Hog:
        def setSVMDetector(self, detector):  # noqa: N802 - OpenCV's name
            pass

    monkeypatch.setattr(cv2, "HOGDescriptor", Hog, raising=False)
    monkeypatch.setattr(cv2, "HOGDescriptor_getDefaultPeopleDetector", lambda: "people", raising=False)


@pytest.fixture
def without_hog(monkeypatch):
    monkeypatch.delattr(cv2, "HOGDescriptor", raising=False)


def test_what_is_asked_for_is_taken(tmp_path, with_hog):
    detector = write_detector(tmp_path / "d.onnx", yolov8_output([], (64, 96)), size_hw=(64, 96))
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps([{"image_id": 0, "bbox": [1, 2, 3, 4]}]))
    finder, line = choose_finder(detector=detector, threads=1)
    assert isinstance(finder, OnnxDetector)
    assert line.startswith("people are found by d.onnx (yolov8 style, 96x64 RGB 0 to 1, class 0, as its classes")
    finder, line = choose_finder(boxes=boxes)
    assert isinstance(finder, BoxesFile)
    assert line == "people are found by boxes.json, which has boxes for 1 frame"
    finder, line = choose_finder(person="hog")
    assert isinstance(finder, HogPeople)
    assert line == f"people are found by the HOG people detector of OpenCV {cv2.__version__}"
    finder, line = choose_finder(person="full-frame")
    assert isinstance(finder, FullFrame)
    assert line == "people are found by taking each whole frame as one person"


def test_without_a_wish_hog_is_taken_and_the_full_frame_where_it_finds_nobody(with_hog):
    finder, line = choose_finder()
    assert isinstance(finder, FirstToFind)
    assert [type(each) for each in finder.finders] == [HogPeople, FullFrame]
    assert line == (
        f"people are found by the HOG people detector of OpenCV {cv2.__version__}, or where that finds nobody "
        "by taking each whole frame as one person, as no detector was given"
    )


class Known:
    """Finds the same boxes in every frame."""

    def __init__(self, *boxes):
        self.description = f"knowing {len(boxes)}"
        self.boxes, self.asked, self.closed = np.array(boxes, np.float32).reshape(-1, 4), [], False

    def find(self, frame_bgr, *, index=0, name=""):
        self.asked.append((index, name))
        return Detections(self.boxes, np.ones(len(self.boxes), np.float32))

    def close(self):
        self.closed = True


def test_the_first_finder_with_an_answer_is_believed():
    nobody, one, two = Known(), Known([1, 2, 3, 4]), Known([0, 0, 5, 5], [1, 1, 5, 5])
    finder = FirstToFind((nobody, one, two))
    found = finder.find(np.zeros((8, 8, 3), np.uint8), index=7, name="seventh")
    np.testing.assert_array_equal(found.boxes_xywh, [[1, 2, 3, 4]])
    assert (nobody.asked, one.asked, two.asked) == ([(7, "seventh")], [(7, "seventh")], [])
    assert (
        finder.description
        == "knowing 0, or where that finds nobody by knowing 1, or where that finds nobody by knowing 2"
    )
    finder.close()
    assert all(each.closed for each in (nobody, one, two))


def test_nobody_anywhere_is_an_empty_answer():
    assert FirstToFind((Known(), Known())).find(np.zeros((8, 8, 3), np.uint8)).boxes_xywh.shape == (0, 4)


def test_without_a_wish_and_without_hog_the_full_frame_is_taken(without_hog):
    finder, line = choose_finder()
    assert isinstance(finder, FullFrame)
    assert f"no detector was given and OpenCV {cv2.__version__} has no HOG; --detector FILE or --boxes FILE" in line
    with pytest.raises(BackendError, match="has no HOG people detector"):
        choose_finder(person="hog")


def test_wishes_that_cannot_be_met():
    with pytest.raises(UsageError, match="in one way only"):
        choose_finder(detector="a.onnx", person="hog")
    with pytest.raises(UsageError, match="person_class is a class of a detector or of boxes, and neither is given"):
        choose_finder(person="full-frame", person_class="person")
    with pytest.raises(UsageError, match="person is 'dog', expected one of hog, full-frame"):
        choose_finder(person="dog")


def test_the_full_frame_is_one_person():
    found = FullFrame().find(np.zeros((30, 40, 3), np.uint8))
    np.testing.assert_array_equal(found.boxes_xywh, [[0, 0, 40, 30]])
    np.testing.assert_array_equal(found.scores, [1])
