"""With a real card: engines built and run, against ONNX Runtime. Not part of the usual run: pytest -m gpu."""

import numpy as np
import pytest

from sfpp.export import export_onnx
from sfpp.export.demo import demo_frame
from sfpp.runtime import load, read_image
from sfpp.runtime.agreement import label_agreement
from sfpp.runtime.backends import BackendOptions, open_backend
from sfpp.runtime.errors import BackendError, MissingDependencyError
from sfpp.runtime.tensorrt import EngineSettings, build_engine
from sfpp.runtime.tensorrt.cuda import card_of_this_machine

pytestmark = pytest.mark.gpu


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def library(request):
    pytest.importorskip(request.param.replace("-", "_"), reason=f"{request.param} is not installed")
    if card_of_this_machine() is None:
        pytest.skip("there is no card, or cuda-python is not installed")
    return request.param


@pytest.mark.parametrize("variant", ["original", "hq", "fast", "2x2"])
@pytest.mark.parametrize("output", ["logits", "labels"])
def test_an_engine_answers_as_onnx_runtime(library, variant, output, tmp_path):
    path = export_onnx(
        path=tmp_path / "model.onnx", variant=variant, res="480x352", output=output, target="tensorrt"
    ).path
    settings = EngineSettings(devices=("current",))
    try:
        engine = build_engine(path, backend=library, settings=settings).path
    except (BackendError, MissingDependencyError) as error:
        pytest.skip(f"{library} does not build here: {error}")
    frame = read_image(demo_frame())
    with load(path, backend="onnxruntime") as reference, load(engine) as model:
        expected = reference(frame).labels
        answers = [model(frame).labels for _ in range(4)]  # plain, recorded, launched as a graph
    for each in answers:
        assert label_agreement(each, expected) > 0.97
        np.testing.assert_array_equal(each, answers[0])


def test_layers_are_timed(library, tmp_path):
    path = export_onnx(path=tmp_path / "model.onnx", res="256x192", target="tensorrt").path
    engine = build_engine(path, backend=library, settings=EngineSettings(devices=("current",))).path
    backend = open_backend(engine, options=BackendOptions(profile=True))[0]
    frame = np.zeros(backend.inputs[0].shape, np.uint8)
    for _ in range(3):
        backend.run({backend.inputs[0].name: frame})
    assert sum(backend.operator_times_ms().values()) > 0
    backend.close()
