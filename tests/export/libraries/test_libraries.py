"""Checkpoints that libraries write themselves, exported without a word about their preparation.

Every file is compared with the library's own labels of the same pictures, from the picture's file to the labels.
docs/export.md says how many are equal; `python -m tests.export.libraries.test_libraries` writes it.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sfpp.export import cli as export_cli
from sfpp.runtime.cli import run as run_cli
from tests.conftest import SHARED
from tests.export.libraries import environments

PAGE = environments.ROOT / "docs/export.md"
LEAST = 0.999
ROAD = 3
RGB = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "bgr_to_rgb": True}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
LEGACY = {
    **{"size": 512, "feature_extractor_type": "SegformerFeatureExtractor", "image_processor_type": None},
    **{"do_rescale": None, "rescale_factor": None, "do_reduce_labels": None, "reduce_labels": True},
}


@dataclass(frozen=True)
class Case:
    """A library's checkpoint.

    Attributes:
        source: for the page.
        what: for the page.
        environment: in which it is made.
        maker: of makers.py.
        settings: of the maker.
        pictures: of pictures().
        res: the size that the user gives, where the checkpoint says none.
        mean: the network's own normalization, 0..255, in its own order.
        std: likewise.
        bgr: its order.
        threshold: of a network with one output.
    """

    source: str
    what: str
    environment: str
    maker: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    pictures: tuple[str, ...] = ("street",)
    res: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    bgr: bool = False
    threshold: float | None = None

    def __str__(self) -> str:
        return re.sub(r"\W+", "-", f"{self.source} {self.what}").strip("-").lower()


def _mmseg(what: str, resize: dict[str, Any] | None, more: dict[str, Any] | None = None, **rest: Any) -> Case:
    settings = {"preprocessor": RGB, "resize": resize, **(more or {})}
    return Case("MMSegmentation", what, "mmsegmentation", "mmsegmentation", settings, **rest)


def _transformers(version: int, what: str, settings: dict[str, Any], **rest: Any) -> Case:
    return Case(f"Transformers {version}", what, f"transformers{version}", "transformers", settings, **rest)


FRAME, STREETS = {"scale": [480, 360], "keep_ratio": True}, ("street", "street 2")
EMA = {"hooks": [{"type": "EMAHook", "momentum": 0.5}], "rate": 2e-4}
BOTH = ("street", "station")
CASES = (
    _mmseg("mmengine's Runner", FRAME, pictures=STREETS, res="480x360"),
    _mmseg("EMAHook", FRAME, EMA, res="480x360"),
    _mmseg(
        "mean and std 127.5, BGR, align_corners, stretched to 512x512",
        {"scale": [512, 512], "keep_ratio": False},
        {
            "preprocessor": {"mean": [127.5] * 3, "std": [127.5] * 3, "bgr_to_rgb": False},
            "head": {"align_corners": True},
        },
        pictures=BOTH,
        **{"mean": (127.5,) * 3, "std": (127.5,) * 3, "bgr": True},
    ),
    _mmseg(
        "mean 0, std 255, padded to multiples of 32",
        FRAME,
        {
            "preprocessor": {
                **{"mean": [0.0] * 3, "std": [255.0] * 3, "bgr_to_rgb": True, "test_cfg": {"size_divisor": 32}}
            }
        },
        res="480x384",
        **{"mean": (0.0,) * 3, "std": (255.0,) * 3},
    ),
    _mmseg(
        "one output, threshold 0.6",
        {"scale": [960, 540], "keep_ratio": True},
        {"head": {"num_classes": 2, "out_channels": 1, "threshold": 0.6}},
        pictures=("station",),
        threshold=0.6,
    ),
    _mmseg(
        "one output, no threshold in its configuration",
        {"scale": [512, 512], "keep_ratio": False},
        {"head": {"num_classes": 2, "out_channels": 1}},
        threshold=0.3,
    ),
    _transformers(4, "SegformerFeatureExtractor", {"processor": {}, "edits": LEGACY}, pictures=BOTH),
    _transformers(
        4,
        "SegformerImageProcessor, mean and std 0.5, 640x384",
        {"processor": {**HALF, "size": {"height": 384, "width": 640}}},
        pictures=BOTH,
        **{"mean": (127.5,) * 3, "std": (127.5,) * 3},
    ),
    _transformers(4, "SegformerImageProcessorFast", {"processor": {}, "fast": True}, pictures=BOTH),
    _transformers(
        4,
        "SegformerImageProcessorFast, shortest_edge",
        {"processor": {"size": {"shortest_edge": 360}}, "fast": True},
        res="480x360",
    ),
    _transformers(
        4,
        "do_resize and do_normalize false",
        {"processor": {"do_resize": False, "do_normalize": False}},
        res="480x360",
        **{"mean": (0.0,) * 3, "std": (255.0,) * 3},
    ),
    _transformers(
        4,
        "do_rescale false",
        {
            "processor": {
                **{"do_rescale": False, "image_mean": [120.0, 110.0, 100.0], "image_std": [60.0] * 3},
                "size": {"height": 360, "width": 480},
            }
        },
        **{"mean": (120.0, 110.0, 100.0), "std": (60.0,) * 3},
    ),
    _transformers(4, "one output", {"processor": {}, "outputs": 1}, threshold=0.5),
    _transformers(5, "SegformerImageProcessor", {"processor": {}}, pictures=BOTH),
    _transformers(
        5,
        "SegformerImageProcessorPil in processor_config.json, mean and std 0.5",
        {"processor": HALF, "backend": "pil", "nested": True},
        pictures=BOTH,
        **{"mean": (127.5,) * 3, "std": (127.5,) * 3},
    ),
    _transformers(5, "one output", {"processor": {}, "outputs": 1}, threshold=0.5),
    Case("SMP", "a state dictionary", "smp", "smp", {"as_folder": False}, ("street 480x352",), "480x352"),
    Case("SMP", "save_pretrained", "smp", "smp", {"as_folder": True}, ("station 960x544",), "960x544"),
    Case(
        *("SMP", "one output", "smp", "smp", {"as_folder": True, "outputs": 1}, ("street 480x352",), "480x352"),
        threshold=0.5,
    ),
    Case("Lightning", "criterion, metric, options", "lightning", "lightning", {}, STREETS, "480x360"),
    Case("Lightning", "EMAWeightAveraging", "lightning", "lightning", {"average": True}, ("street",), "480x360"),
    Case("TAO", "newer layout", "transformers5", "tao", {}, STREETS, "480x360"),
)


def pictures(name: str, folder: Path) -> Path:
    """Return a picture's file: a frame of CamVid or a large photograph as it is, or of a size that SMP takes."""
    streets = sorted((SHARED / "data/camvid/test/images").iterdir())
    found = {
        "street": streets[0],
        "street 2": streets[-1],
        "station": SHARED / "data/images/tokyo_station_3840x2160.jpg",
    }
    if name in found:
        return found[name]
    which, size = name.split(" ")
    width, height = map(int, size.split("x"))
    image = cv2.imread(str(found[which]))
    rows = round(image.shape[0] * width / image.shape[1])
    resized = cv2.resize(image, (width, max(rows, height)), interpolation=cv2.INTER_AREA)
    path = folder / f"{which}-{size}.png"
    cv2.imwrite(str(path), resized[:height])
    return path


@cache
def official() -> dict[str, Any]:
    from tests.export.libraries import weights

    train = sorted((SHARED / "data/camvid/train/images").iterdir())
    return weights.official(train[:: len(train) // 4])


def write_states(case: Case, folder: Path) -> dict[str, str]:
    """Write the network in the names of the case's library, and return what a job says of it."""
    from safetensors.torch import save_file

    from tests.export.libraries import weights

    if case.maker == "mmsegmentation":
        state = weights.mmsegmentation()
    else:
        state = weights.smp(official()) if case.maker == "smp" else weights.transformers(official())
    if case.mean is not None and case.std is not None:
        state = weights.with_normalization(state, case.mean, case.std, bgr=case.bgr)
    if case.threshold is not None:
        state = weights.of_one_class(state, ROAD, case.threshold)
    files = {"state": state} | ({"tao": weights.tao(official())} if case.maker == "tao" else {})
    for name, content in files.items():
        save_file({key: value.contiguous().clone() for key, value in content.items()}, folder / f"{name}.safetensors")
    return {name: str(folder / f"{name}.safetensors") for name in files}


def equal_labels(case: Case, folder: Path) -> Iterator[tuple[str, float, str]]:
    """Make, export and run a case.

    Yields each picture's name, the share of equal labels, and what the library calls itself.
    """
    files = {name: pictures(name, folder) for name in case.pictures}
    out = folder / "made"
    job = {
        **{"maker": case.maker, "settings": dict(case.settings), "pictures": [str(each) for each in files.values()]},
        **{"out": str(out), "truth": str(SHARED / "data/camvid/train"), **write_states(case, folder)},
    }
    said = environments.made(case.environment, job)
    model = folder / "model.onnx"
    size = ["--res", case.res] if case.res else []
    assert export_cli.main(["--weights", str(out / said["weights"]), *size, "-o", str(model)]) == 0
    for name, picture in files.items():
        masks = folder / f"masks {name}"
        plain = ["--backend", "onnxruntime", "--precision", "fp32", "--masks", str(masks)]
        assert run_cli.main([str(model), str(picture), *plain]) == 0
        (mask,) = masks.glob("*.png")
        ours = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
        theirs = cv2.imread(str(out / f"{picture.stem}.png"), cv2.IMREAD_UNCHANGED)
        # A network that answers everything alike agrees with every other that does.
        assert len(np.unique(theirs)) >= (2 if case.threshold else 7)
        yield name, float((ours == theirs).mean()), said["library"]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_labels_are_those_of_the_library(case, shared, tmp_path):
    shares = {name: share for name, share, _ in equal_labels(case, tmp_path)}
    assert min(shares.values()) >= LEAST, shares


# The page


def table() -> str:
    """Make, export and run every case."""
    lines = ["| source | checkpoint | made with | equal labels |", "|---|---|---|---:|"]
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            of = list(equal_labels(case, Path(folder)))
        lowest = np.floor(min(share for _, share, _ in of) * 1e4) / 100
        lines.append(f"| {case.source} | {case.what} | {of[0][2]} | {lowest:.2f} % |")
        print(lines[-1], file=sys.stderr)
    return "\n".join(lines)


def test_the_page_has_every_case():
    page = PAGE.read_text("utf-8")
    rows = re.search(r"<!-- libraries -->\n\n(.*?)\n\n<!-- end -->", page, flags=re.DOTALL)[1].splitlines()[2:]
    assert [row.split(" | ")[:2] for row in rows] == [[f"| {case.source}", case.what] for case in CASES]
    assert min(float(row.split(" | ")[-1].removesuffix(" % |")) for row in rows) >= 100 * LEAST


if __name__ == "__main__":
    text = PAGE.read_text("utf-8")
    made = table()
    PAGE.write_text(
        re.sub(r"(<!-- libraries -->\n\n).*?(\n\n<!-- end -->)", lambda m: m[1] + made + m[2], text, flags=re.DOTALL),
        "utf-8",
    )
