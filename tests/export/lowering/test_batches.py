"""One file for any number of frames: the same answers as files for fixed numbers, in every variant and backend."""

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest

from sfpp.calibration import calibrate
from sfpp.export.demo import demo_frame
from sfpp.export.settings import batch_from
from sfpp.runtime import UsageError, load, load_segmenter, read_image
from sfpp.runtime.contract import contract_from_json
from sfpp.runtime.tensorrt import build_engine
from sfpp.runtime.video import Pipeline
from sfpp.tooling.graph import BATCH, graph_for_one_frame, opened_batch, read_model

SIZE = {"res": "160x128"}
OPEN = {**SIZE, "batch": "1..4"}


@pytest.fixture(scope="module")
def frames():
    frame = read_image(demo_frame())
    return [np.ascontiguousarray(np.roll(frame, 90 * index, axis=1)) for index in range(4)]


@pytest.mark.parametrize(
    "options",
    [
        {"variant": "original"},
        {"variant": "original", "target": "onnxruntime", "output": "labels"},
        {"variant": "hq"},
        {"variant": "fast+", "matching": "local", "input": "nv12"},
        {"variant": "kv2x2", "size_weighted": True, "target": "onnxruntime"},
        {"variant": "2x2", "input": "float32"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_answers_are_those_of_each_frame_alone(demo_export, frames, options, backend):
    if backend == "openvino" and options.get("target") == "onnxruntime":
        pytest.skip("its attention is ONNX Runtime's own")
    single = load_segmenter(demo_export(**SIZE, **options).path, backend=backend, precision="fp32")
    many = load_segmenter(demo_export(**OPEN, **options).path, backend=backend, precision="fp32")
    expected = [single.infer(single.prepare(frame))[single.output.name][0] for frame in frames]
    for count in (1, 2, 3, 4):
        prepared = many.prepare_batch(frames[:count])
        assert len(prepared.tensor) == count
        answers = many.infer(prepared)[many.output.name]
        np.testing.assert_allclose(answers, expected[:count], atol=2e-4)
        assert len(many.finish_batch({many.output.name: answers}, prepared)) == count
    with pytest.raises(UsageError, match="5 frames given, but the model takes 1 to 4"):
        many.prepare_batch([*frames, frames[0]])


def test_the_file_says_that_its_batch_is_open(demo_export):
    report = demo_export(**OPEN, variant="hq")
    spec = report.contract.input
    assert (spec.batch, spec.open_batch, spec.rows(3), spec.shape[0]) == (4, True, 3, 4)
    assert [spec.is_batch(rows) for rows in (0, 1, 4, 5)] == [False, True, True, False]
    graph = onnx.load(report.path).graph
    for value in (*graph.input, *graph.output):
        first, *rest = value.type.tensor_type.shape.dim
        assert first.dim_param == BATCH
        assert all(size.dim_value > 0 for size in rest)
    assert report.contract.multiply_adds == demo_export(**SIZE, variant="hq").contract.multiply_adds


def test_little_is_added_to_the_graph(demo_export):
    """A few nodes at its beginning: nothing that a frame costs."""
    fixed, opened = (onnx.load(demo_export(**each, variant="fast+").path).graph for each in (SIZE, OPEN))
    more = {node.name for node in opened.node} - {node.name for node in fixed.node}
    own = {name for name in more if name.startswith(f"{BATCH}/")}
    assert len(own) < 24
    # Where each frame's tokens begin, which a file for one frame does not ask.
    assert all(name.endswith("_flat_index") for name in more - own)


def test_a_graph_is_fixed_and_opened_again(demo_export):
    path = demo_export(**OPEN, variant="hq").path
    fixed = read_model(path)
    values = (*fixed.graph.input, *fixed.graph.output, *fixed.graph.value_info)
    assert all(size.HasField("dim_value") for value in values for size in value.type.tensor_type.shape.dim)
    assert {value.type.tensor_type.shape.dim[0].dim_value for value in (*fixed.graph.input, *fixed.graph.output)} == {1}
    names = {value.name for value in fixed.graph.value_info}
    assert {output for node in fixed.graph.node for output in node.output} <= names | {fixed.graph.output[0].name}
    session = onnxruntime.InferenceSession(opened_batch(fixed).SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.run(None, {"frame": np.zeros((3, 128, 160, 3), np.uint8)})[0].shape[0] == 3
    closed = onnx.load(demo_export(**SIZE, variant="hq").path)
    assert graph_for_one_frame(closed) is closed


def test_lower_precisions_keep_it_open(demo_export, frames, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(demo_export(**OPEN, variant="fast").path.read_bytes())
    calibrate(path, demo_frame(), output=tmp_path, precision=("fp16", "int8"), latency=False, report=False)
    for precision in ("fp16", "int8"):
        with load_segmenter(path.with_suffix(f".{precision}.onnx"), backend="onnxruntime") as model:
            assert model.contract.input.open_batch
            prepared = model.prepare_batch(frames[:3])
            several = model.finish_batch(model.infer(prepared), prepared)
            for frame, result in zip(frames, several, strict=False):
                assert (model(frame).labels == result.labels).mean() > 0.999


def test_people_are_taken_together_and_none_is_made_up(demo_export):
    with load(demo_export(task="pose", batch="1..4").path, backend="onnxruntime") as model:
        image = read_image(demo_frame())
        boxes = np.array([[10 * index, 5, 60, 120] for index in range(6)], np.float32)
        prepared = model.prepare(image, boxes)
        assert [len(batch) for batch in prepared.batches] == [4, 2]
        together = model(image, boxes)
        alone = [model(image, box[None]) for box in boxes]
        np.testing.assert_allclose(
            together.keypoints_xy, np.concatenate([each.keypoints_xy for each in alone]), atol=1e-3
        )


def test_sources_share_a_run_and_a_camera_alone_is_followed(demo_export):
    with load_segmenter(demo_export(**OPEN, variant="original").path, backend="onnxruntime") as model:
        sizes, infer = [], model.infer
        model.infer = lambda prepared: sizes.append(len(prepared.tensor)) or infer(prepared)
        with Pipeline(model, ["test://?frames=6", "test://?frames=6&seed=2"], policy="every-frame") as pipeline:
            assert len(list(pipeline)) == 12
        assert set(sizes) <= {1, 2}
        assert sum(sizes) == 12
        with Pipeline(model, ["test://?frames=3"]) as pipeline:
            assert pipeline.policy == "follow"


def test_engines_are_built_for_the_largest_batch(demo_export, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")
    done = build_engine(demo_export(**OPEN, variant="fast").path, tmp_path / "model.engine", backend="tensorrt-rtx")
    spec = contract_from_json(done.sidecar.read_text()).input
    assert (spec.batch, spec.open_batch) == (4, False)


@pytest.mark.parametrize(("given", "expected"), [(1, (1, False)), ("4", (4, False)), ("1..64", (64, True))])
def test_batches_as_people_write_them(given, expected):
    assert batch_from(given) == expected


@pytest.mark.parametrize("given", [0, 65, True, 2.0, None, "1..1", "2..4", "1..", "..4", "1..100", "dynamic", "\u0664"])
def test_what_is_no_batch(given):
    with pytest.raises(UsageError, match=r"expected a whole number from 1 to 64, or a range such as 1\.\.8"):
        batch_from(given)


def test_another_contract_than_the_files_own(demo_export):
    """A contract that says an open batch of a file that has none: the file decides."""
    fixed = demo_export(**SIZE, batch=2)
    spec = dataclasses.replace(fixed.contract.input, open_batch=True)
    contract = dataclasses.replace(fixed.contract, input=spec)
    with load_segmenter(fixed.path, contract=contract, backend="onnxruntime") as model:
        assert model(read_image(demo_frame())).labels.size
