"""Networks with sigmoids in FP16 and INT8: the threshold stays what it is, and a row of zeros harms nothing."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from sfpp.calibration import calibrate
from sfpp.export import export_onnx
from sfpp.runtime import load, read_image, write_image
from sfpp.runtime.errors import UsageError
from sfpp.runtime.labels import logit
from tests.calibration.test_calibrate import shipped_frames
from tests.export.test_sigmoid import CONFIG, ROAD, road_weights

SKY = 0


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Four frames of the shipped clip."""
    return shipped_frames(tmp_path_factory.mktemp("frames"), every=18)


def exported(folder, *, rows=(SKY,), **settings):
    meta = {"config": CONFIG, "CLASSES": ("background", "sky")} if rows == (SKY,) else {}
    return export_onnx(road_weights(folder, meta, rows=rows), folder / "road.onnx", res="160x96", **settings).path


def calibrated(model, frames, folder, **options):
    options = {"frames": 2, "held_out": 2, "ranges": "minmax", "latency": False, "report": False, **options}
    return calibrate(model, frames, output=folder / "made", **options)


@pytest.mark.parametrize(
    ("target", "precision"), [("portable", ("fp16", "int8")), pytest.param("onnxruntime", ("int8",), id="dense")]
)
def test_one_output(tmp_path, frames, target, precision):
    model = exported(tmp_path, target=target)
    truth = tmp_path / "truth"
    with load(model, backend="onnxruntime", precision="fp32") as float32:
        for path in frames.iterdir():
            write_image(truth / path.name, float32(read_image(path)).labels)
    report = calibrated(model, frames, tmp_path, precision=precision, labels=truth)
    assert report.files[0].accuracy.mean_iou == 1.0  # against what the model itself says, of two classes
    for file in report.files[1:]:
        assert file.accuracy.iou_by_class.keys() == {"background", "sky"}
        assert file.accuracy.mean_iou > {"fp16": 0.98, "int8": 0.8}[file.precision]
        with load(file.path, backend="onnxruntime", precision="fp32") as made:
            assert (made.contract.threshold, made.contract.classes) == (0.3, ("background", "sky"))
            background, _ = made.infer(made.prepare(read_image(next(frames.iterdir()))))["logits"][0]
        np.testing.assert_allclose(background, logit(0.3), rtol=1e-3)
        for stored in onnx.load(file.path).graph.initializer:
            if stored.name.endswith("/scale"):
                assert numpy_helper.to_array(stored).min() >= np.finfo(np.float32).tiny, stored.name


def test_several_outputs(tmp_path, frames):
    model = exported(tmp_path, rows=(ROAD, SKY, 6), multi_label=True)
    report = calibrated(model, frames, tmp_path, precision=("int8",))
    made = report.files[1]
    picture = read_image(next(frames.iterdir()))
    masks = []
    for path in (model, made.path):
        with load(path, backend="onnxruntime", precision="fp32") as opened:
            assert (opened.contract.threshold, opened.contract.multi_label) == (0.5, True)
            masks.append(opened(picture).masks)
    same = (masks[0] == masks[1]).all(axis=0).mean()
    assert 0.7 < same < 1
    assert 0.7 < made.accuracy.agreement < 1
    assert made.accuracy.mean_iou is None
    assert 0 < made.accuracy.boundary_f <= 1
    assert report.pictures[0].image_bgr.shape == (*picture.shape[:2], 3)
    with pytest.raises(UsageError, match="label images hold one class per pixel, and this is a multi-label model"):
        calibrated(model, frames, tmp_path, labels=frames)
