"""Small clips and a small model, made where they are needed."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from sfpp.runtime import InputSpec, ModelContract, OutputSpec, Segmenter
from sfpp.runtime.backends import FunctionBackend
from sfpp.runtime.video import Frame

CONTRACT = ModelContract(
    task="segmentation",
    family="test",
    size="tiny",
    variant="original",
    input=InputSpec("frame", 24, 32),
    outputs=(OutputSpec("logits", "logits", 4),),
    classes=("red", "green", "blue"),
    palette=((255, 0, 0), (0, 255, 0), (0, 0, 255)),
)


def rgb_segmenter() -> Segmenter:
    """Each pixel's class is its strongest color: logits are the means of 4x4 pixels."""
    return Segmenter(FunctionBackend(_channel_means, metadata={}), CONTRACT)


def _channel_means(inputs):
    cells = inputs["frame"].astype(np.float32).reshape(1, 6, 4, 8, 4, 3).mean(axis=(2, 4))
    return {"logits": cells.transpose(0, 3, 1, 2)}


def picture(index: int, *, size_hw: tuple[int, int] = (48, 64)) -> np.ndarray:
    """A picture that can be told from its neighbours: noise around a gray level that rises; the 60th is the first."""
    index %= 60
    noise = np.random.default_rng(index).integers(0, 30, (*size_hw, 1), dtype=np.uint8)
    return noise + np.array([0, 10, 20], np.uint8) + np.uint8(20 + index * 3)


def frame(index: int, *, size_hw: tuple[int, int] = (48, 64), time_s: float = 0.0) -> Frame:
    return Frame(index, picture(index, size_hw=size_hw), time_s, f"frame-{index}")


def write_clip(
    path: Path, *, frames: int = 60, rate: Fraction = Fraction(25), size_hw: tuple[int, int] = (48, 64), **options: str
) -> Path:
    """H.264 without B-frames, so that a cut leaves whole frames; ``options`` go to the container."""
    with av.open(str(path), mode="w", options=options) as container:
        stream = container.add_stream("libx264", rate=rate, options={"bf": "0", "crf": "10", "g": "10"})
        stream.height, stream.width = size_hw
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            image = av.VideoFrame.from_ndarray(picture(index, size_hw=size_hw), format="bgr24")
            image.pts, image.time_base = index, 1 / rate
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    return path


def read_clip(path: Path) -> list[np.ndarray]:
    """All frames, (H, W, 3) BGR; fails on any damage."""
    with av.open(str(path)) as container:
        return [image.to_ndarray(format="bgr24") for image in container.decode(video=0)]


def index_of(image: np.ndarray, *, among: int = 60) -> int:
    """The index of the picture whose noise is most like that of ``image``; codecs shift levels a little."""
    height, width = image.shape[:2]

    def texture(image):
        gray = image.astype(float).mean(axis=2)
        return gray - gray.mean()

    distances = [
        np.abs(texture(image) - texture(picture(index, size_hw=(height, width)))).mean() for index in range(among)
    ]
    return int(np.argmin(distances))
