"""People of three dots, red, green and blue, and a model that finds them: each keypoint is where its color is."""

from fractions import Fraction

import numpy as np

from sfpp.runtime import InputSpec, KeypointSpec, ModelContract, OutputSpec, PoseEstimator
from sfpp.runtime.backends import FunctionBackend
from sfpp.runtime.people import Detections
from sfpp.runtime.video import Source
from sfpp.runtime.video.frame import Decoded

CONTRACT = ModelContract(
    task="pose",
    family="test",
    size="tiny",
    variant="original",
    input=InputSpec("frame", 64, 48, batch=2),
    outputs=(OutputSpec("heatmaps", "heatmaps", 4),),
    keypoints=KeypointSpec(("head", "left_foot", "right_foot"), skeleton=((0, 1), (0, 2)), flip_pairs=((1, 2),)),
)
# From the middle of the person, in pixels; each dot is 13 wide and high.
DOTS_XY = np.array([[0, -24], [14, 24], [-14, 20]])
BOX_WH = (42, 62)


def dots_estimator(**options) -> PoseEstimator:
    return PoseEstimator(FunctionBackend(_channel_means, metadata={}), CONTRACT, **options)


def _channel_means(inputs):
    cells = inputs["frame"].astype(np.float32).reshape(2, 16, 4, 12, 4, 3).mean(axis=(2, 4))
    return {"heatmaps": cells.transpose(0, 3, 1, 2) / 255}


def picture(*middles_xy, size_hw=(120, 200), colors=(0, 1, 2)):
    """(H, W, 3) uint8 BGR, black but for the people; ``colors`` are the dots that are drawn."""
    image = np.zeros((*size_hw, 3), np.uint8)
    for middle in middles_xy:
        for index in colors:
            x, y = np.add(middle, DOTS_XY[index])
            image[max(0, y - 6) : max(0, y + 7), max(0, x - 6) : max(0, x + 7), 2 - index] = 255
    return image


def keypoints_of(middle_xy):
    return DOTS_XY + np.array(middle_xy)


def box_of(middle_xy):
    return [middle_xy[0] - BOX_WH[0] / 2, middle_xy[1] - BOX_WH[1] / 2, *BOX_WH]


def source_of(images) -> Source:
    def decoded():
        for index, image in enumerate(images):
            yield Decoded(image, index / 25, f"dots-{index:06d}")

    return Source(decoded(), kind="video", name="dots", frames_per_second=Fraction(25), count=len(images))


class Known:
    """A finder that was told where people are, by frame; it counts how often it is asked."""

    description = "being told"

    def __init__(self, boxes_by_frame):
        self._boxes = boxes_by_frame
        self.asked = []

    def find(self, frame_bgr, *, index=0, name=""):
        self.asked.append(index)
        boxes = np.array(self._boxes[index], np.float32).reshape(-1, 4)
        return Detections(boxes, np.ones(len(boxes), np.float32))

    def close(self):
        pass
