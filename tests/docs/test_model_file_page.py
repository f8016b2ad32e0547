"""The page for programs without sfpp: it names every field, and its recipe gives the runtime's own labels."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

from sfpp.export.demo import demo_frame, demo_person
from sfpp.runtime import contract, load_pose, load_segmenter
from sfpp.runtime.pixels.nv12 import nv12_from_bgr

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/model-file.md").read_text(encoding="utf-8")
RECORDS = (
    contract.ModelContract,
    contract.InputSpec,
    contract.OutputSpec,
    contract.KeypointSpec,
    contract.CalibrationRecord,
    contract.EngineRecord,
    contract.SelfTest,
)


@pytest.fixture(scope="module")
def model(demo_export):
    return demo_export(variant="fast", res="320x192").path


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_field_is_named(record):
    named = set(re.findall(r"[`\"](?:\w+\.)?(\w+)[`\"]", PAGE))
    missing = {field.name for field in dataclasses.fields(record)} - named
    assert not missing


def test_the_example_is_what_an_export_writes(model):
    shown = json.loads(re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)[1])
    with load_segmenter(model, backend="onnxruntime") as segmenter:
        written = json.loads(segmenter.contract.to_json())
    assert {**shown["input"], "height": 192, "width": 320} == written["input"]
    for name in ("task", "outputs", "schema_version"):
        assert shown[name] == written[name]
    for name in ("classes", "palette"):
        assert shown[name] == written[name][: len(shown[name])]


def test_the_snippet_makes_the_runtimes_nv12(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("photo.jpg", cv2.imread(str(demo_frame())))
    scope = {}
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], scope)
    np.testing.assert_array_equal(scope["nv12"], nv12_from_bgr(scope["frame_bgr"], "bt601"))


@pytest.mark.parametrize("size_hw", [(192, 320), (270, 480), (540, 300), (97, 801), (30, 50)])
def test_the_sample_gives_the_runtimes_labels(model, tmp_path, size_hw):
    frame_bgr = cv2.resize(cv2.imread(str(demo_frame())), size_hw[::-1])
    cv2.imwrite(str(tmp_path / "photo.png"), frame_bgr)
    sample = ROOT / "samples/plain_onnxruntime.py"
    subprocess.run([sys.executable, sample, model, tmp_path / "photo.png", tmp_path / "labels.png"], check=True)
    labels = cv2.imread(str(tmp_path / "labels.png"), cv2.IMREAD_UNCHANGED)
    with load_segmenter(model, backend="onnxruntime", precision="fp32") as segmenter:
        expected = segmenter(frame_bgr).labels
    assert labels.shape == size_hw
    assert np.mean(labels != expected) < 1e-4  # two classes may be alike to the last bit
    assert len(np.unique(expected)) > 3


def test_the_five_steps_of_pose_give_the_runtimes_keypoints(demo_export):
    """Word by word from the page, without any of the runtime's own functions."""
    path = demo_export(task="pose").path
    frame_bgr, box = cv2.imread(str(demo_person())), (70.0, 30.0, 60.0, 160.0)
    session = onnxruntime.InferenceSession(path)
    told = json.loads(session.get_modelmeta().custom_metadata_map["sfpp.contract"])
    spec, padding = told["input"], told["keypoints"]["box_padding"]
    left, top, width, height = box
    middle_x, middle_y = left + width / 2, top + height / 2
    aspect = spec["width"] / spec["height"]
    region_width = max(width, height * aspect) * padding
    region_height = region_width / aspect
    region_left, region_top = middle_x - region_width / 2, middle_y - region_height / 2
    scale = spec["width"] / region_width
    matrix = np.array([[scale, 0, -region_left * scale], [0, scale, -region_top * scale]])
    crop = cv2.warpAffine(frame_bgr, matrix, (spec["width"], spec["height"]))
    (heatmaps,) = session.run(None, {spec["name"]: cv2.cvtColor(crop, cv2.COLOR_BGR2RGB)[None]})
    keypoints = []
    for heatmap in heatmaps[0]:
        rows, columns = heatmap.shape
        row, column = divmod(int(heatmap.argmax()), columns)
        x, y = float(column), float(row)
        if 0 < column < columns - 1:
            x += 0.25 * np.sign(heatmap[row, column + 1] - heatmap[row, column - 1])
        if 0 < row < rows - 1:
            y += 0.25 * np.sign(heatmap[row + 1, column] - heatmap[row - 1, column])
        keypoints.append((region_left + x * region_width / columns, region_top + y * region_height / rows))
    with load_pose(path, backend="onnxruntime", precision="fp32") as model:
        expected = model(frame_bgr, [box]).keypoints_xy[0]
    np.testing.assert_allclose(keypoints, expected, atol=0.01)
