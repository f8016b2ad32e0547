"""What only a machine with an NVIDIA card can tell: that ONNX Runtime computes the same there."""

import pytest

from sfpp.export import export_onnx
from sfpp.export.demo import demo_frame
from sfpp.runtime import load, read_image
from sfpp.runtime.agreement import label_agreement
from sfpp.runtime.errors import BackendError

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("target", ["portable", "onnxruntime"])
@pytest.mark.parametrize("variant", ["original", "fast"])
def test_cuda_answers_as_the_cpu(target, variant, tmp_path):
    path = export_onnx(path=tmp_path / "model.onnx", variant=variant, res="480x352", target=target).path
    frame = read_image(demo_frame())
    try:
        model = load(path, backend="onnxruntime-cuda", precision="fp32")
    except BackendError as error:
        pytest.skip(f"ONNX Runtime has no CUDA here: {error}")
    with model, load(path, backend="onnxruntime") as reference:
        if "did not start" in model.description:
            pytest.skip("there is no card, or CUDA's libraries are not installed")
        assert label_agreement(model(frame).labels, reference(frame).labels) > 0.99
