import cv2
import numpy as np
import pytest

from sfpp.runtime import BackendError
from sfpp.runtime.people import HogPeople


class FakeHog:
    """Answers with fixed windows, in pixels of the picture that it is given."""

    windows = np.array([[100, 80, 160, 320], [104, 80, 160, 320], [300, 100, 80, 160], [500, 100, 80, 160]])
    margins = np.array([[1.0], [2.0], [0.4], [0.6]])
    asked = None

    def setSVMDetector(self, detector):  # noqa: N802 - OpenCV's name
        assert detector == "people"

    def detectMultiScale(self, image, **options):  # noqa: N802 - OpenCV's name
        self.asked.append(image.shape)
        return self.windows, self.margins


@pytest.fixture
def fake_hog(monkeypatch):
    monkeypatch.setattr(cv2, "HOGDescriptor", FakeHog, raising=False)
    monkeypatch.setattr(cv2, "HOGDescriptor_getDefaultPeopleDetector", lambda: "people", raising=False)
    monkeypatch.setattr(FakeHog, "asked", [])
    return FakeHog


@pytest.mark.parametrize(
    ("frame_hw", "scale"), [((600, 800), 1), ((300, 700), 1), ((1200, 1600), 2), ((1600, 1200), 2)]
)
def test_windows_lose_their_margin_and_return_to_the_frame(fake_hog, frame_hw, scale):
    found = HogPeople().find(np.zeros((*frame_hw, 3), np.uint8))
    assert fake_hog.asked == [(*(side // scale for side in frame_hw), 3)]
    height, width = frame_hw
    expected = np.array([[144, 120, 80, 240], [520, 120, 40, 120]]) * scale
    expected[:, 2] = np.minimum(expected[:, 2], width - expected[:, 0])
    expected[:, 3] = np.minimum(expected[:, 3], height - expected[:, 1])
    np.testing.assert_allclose(found.boxes_xywh, expected[expected[:, 2] > 0])
    np.testing.assert_allclose(found.scores[:1], [2 / 3])
    assert found.boxes_xywh.dtype == found.scores.dtype == np.float32


def test_nobody_and_pictures_smaller_than_the_window(fake_hog, monkeypatch):
    for frame_hw in ((127, 400), (400, 63)):
        assert HogPeople().find(np.zeros((*frame_hw, 3), np.uint8)).boxes_xywh.shape == (0, 4)
    assert fake_hog.asked == []
    monkeypatch.setattr(fake_hog, "windows", ())  # what OpenCV gives for nobody
    monkeypatch.setattr(fake_hog, "margins", ())
    found = HogPeople().find(np.zeros((400, 400, 3), np.uint8))
    assert (found.boxes_xywh.shape, found.scores.shape) == ((0, 4), (0,))


def test_an_opencv_without_hog_says_so(monkeypatch):
    monkeypatch.delattr(cv2, "HOGDescriptor", raising=False)
    with pytest.raises(BackendError, match=r"has no HOG people detector .* --detector .* --boxes .* full-frame"):
        HogPeople()


def test_real_pedestrians(shared):
    if not hasattr(cv2, "HOGDescriptor"):
        pytest.skip(f"OpenCV {cv2.__version__} has no HOG")
    capture = cv2.VideoCapture(str(shared / "data" / "video" / "pedestrians_vtest_768x576.avi"))
    frame = capture.read()[1]
    capture.release()
    boxes = HogPeople().find(frame).boxes_xywh
    person = np.array([250, 208, 36, 109])
    assert np.abs(boxes - person).max(axis=1).min() < 12
