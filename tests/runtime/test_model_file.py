import dataclasses
import inspect
import logging
import re
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import sfpp.runtime
from sfpp.runtime.contract import METADATA_KEY, InputSpec, KeypointSpec, ModelContract, OutputSpec, read_contract_file
from sfpp.runtime.errors import BackendError, ContractError, ModelFileError, UsageError
from sfpp.runtime.model_file import load, load_pose, load_segmenter
from sfpp.runtime.pose import PoseEstimator
from sfpp.runtime.segmentation import Segmenter

CONTRACT = ModelContract(
    task="segmentation",
    family="segformer",
    size="b0",
    variant="fast",
    input=InputSpec(name="frame", height=16, width=24),
    outputs=(OutputSpec(name="logits", kind="logits", stride=1),),
    classes=("red", "green", "blue"),
    palette=((255, 0, 0), (0, 255, 0), (0, 0, 255)),
)


POSE = dataclasses.replace(
    CONTRACT,
    task="pose",
    outputs=(OutputSpec(name="logits", kind="heatmaps", stride=1),),
    classes=(),
    palette=(),
    keypoints=KeypointSpec(names=("a", "b", "c"), flip_pairs=((0, 1),), box_padding=1.0),
)


def write_model(path, metadata):
    """A graph whose logits are the frame's own red, green and blue."""
    nodes = [
        helper.make_node("Cast", ["frame"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["wide"], ["logits"], perm=[0, 3, 1, 2]),
    ]
    graph = helper.make_graph(
        nodes,
        "channels",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, CONTRACT.input.shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 3, 16, 24))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SFPP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model_path(tmp_path):
    return write_model(tmp_path / "model.onnx", {METADATA_KEY: CONTRACT.to_json()})


@pytest.mark.parametrize("backend", [None, "onnxruntime", "openvino"])
def test_file_with_its_contract_segments_a_frame(model_path, backend):
    if backend is not None:
        pytest.importorskip(backend)
    frame_bgr = np.random.default_rng(1).integers(0, 256, size=(16, 24, 3), dtype=np.uint8)
    # Neighboring values of a pixel's colors are one and the same in bfloat16.
    with load(model_path, backend=backend, precision="fp32") as segmenter:
        assert segmenter.contract == CONTRACT
        labels = segmenter(frame_bgr).labels
    np.testing.assert_array_equal(labels, frame_bgr[..., ::-1].argmax(axis=-1))


@pytest.fixture
def pose_path(tmp_path):
    return write_model(tmp_path / "pose.onnx", {METADATA_KEY: POSE.to_json()})


def test_task_decides_what_comes_back(model_path, pose_path):
    with load(model_path) as model:
        assert isinstance(model, Segmenter)
    with load(pose_path) as model:
        assert isinstance(model, PoseEstimator)
        assert not model.flip_test
        assert model.contract == POSE
    with load(pose_path, flip_test=True) as model:
        assert model.flip_test
    with load(model_path, contract=POSE) as model:
        assert isinstance(model, PoseEstimator)


def test_pose_file_finds_the_brightest_pixels(pose_path):
    frame_bgr = np.zeros((16, 24, 3), np.uint8)
    frame_bgr[5, 7, 2] = frame_bgr[11, 20, 1] = frame_bgr[2, 3, 0] = 1
    with load_pose(pose_path) as model:
        pose = model(frame_bgr, [(0, 0, 24, 16)])
    np.testing.assert_allclose(pose.keypoints_xy, [[[7, 5], [20, 11], [3, 2]]], atol=1e-5)
    np.testing.assert_array_equal(pose.scores, [[1, 1, 1]])


def test_loaders_of_one_task_refuse_the_other(model_path, pose_path):
    with load_segmenter(model_path, threads=1) as model:
        assert isinstance(model, Segmenter)
    with load_pose(pose_path, flip_test=True) as model:
        assert model.flip_test
    for loader in (load_segmenter, load_pose):
        assert inspect.signature(loader).parameters == inspect.signature(load).parameters
    assert (load_segmenter.__name__, load_pose.__name__) == ("load_segmenter", "load_pose")
    with pytest.raises(UsageError, match=r"pose\.onnx is a pose model: open it with load_pose"):
        load_segmenter(pose_path)
    with pytest.raises(UsageError, match=r"model\.onnx is a segmentation model: open it with load_segmenter"):
        load_pose(model_path)


def test_flip_test_is_for_pose(model_path):
    with pytest.raises(UsageError, match="flip test is for pose models, and this is a segmentation model"):
        load(model_path, flip_test=True)


def test_backend_and_reason_are_said_in_one_line(model_path, caplog):
    lines = []
    with caplog.at_level(logging.INFO, logger="sfpp"):
        load(str(model_path), threads=1, notify=lines.append).close()
        load(model_path, backend="onnxruntime", notify=lines.append).close()
    assert len(lines) == 2
    assert re.fullmatch(r"model\.onnx runs in \S.* on the CPU.*: chosen because .*", lines[0])
    assert re.fullmatch(r"model\.onnx runs in ONNX Runtime .* on the CPU: as asked for", lines[1])
    assert [message for message in caplog.messages if "carries no self-test" not in message] == lines


def test_every_loader_hands_on_backend_and_precision(model_path, pose_path):
    for loader, path in ((load, model_path), (load_segmenter, model_path), (load_pose, pose_path)):
        with loader(path, backend="onnxruntime") as model:
            assert "ONNX Runtime" in model.description
        with pytest.raises(UsageError, match="precision bf16 was asked for, but ONNX Runtime"):
            loader(path, backend="onnxruntime", precision="bf16")
        with pytest.raises(UsageError, match="backend is 'abacus', expected one of"):
            loader(path, backend="abacus")


def test_given_contract_says_the_target(tmp_path):
    path = write_model(
        tmp_path / "model.onnx", {METADATA_KEY: dataclasses.replace(CONTRACT, target="abacus").to_json()}
    )
    with pytest.raises(BackendError, match=r"model\.onnx was exported for the target 'abacus'"):
        load(path)
    load(path, contract=CONTRACT).close()


def test_given_contract_wins_over_the_files(model_path):
    other = dataclasses.replace(CONTRACT, classes=("a", "b", "c"))
    with load(model_path, contract=other) as segmenter:
        assert segmenter(np.zeros((16, 24, 3), np.uint8)).classes == ("a", "b", "c")


def test_foreign_model_needs_a_contract(tmp_path):
    path = write_model(tmp_path / "foreign.onnx", {})
    with pytest.raises(ContractError, match=r"foreign\.onnx carries no contract .*contract=read_contract_file"):
        load(path)
    facts = tmp_path / "facts.json"
    facts.write_text(CONTRACT.to_json(), encoding="utf-8")
    with load(path, contract=read_contract_file(facts)) as segmenter:
        assert segmenter(np.zeros((5, 5, 3), np.uint8)).labels.shape == (5, 5)


def test_broken_contract_names_the_file(tmp_path):
    path = write_model(tmp_path / "model.onnx", {METADATA_KEY: "{"})
    with pytest.raises(ContractError, match=r"the contract in model\.onnx is not valid JSON"):
        load(path)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"height": 32}, "'frame', uint8 of 1x32x24x3"),
        ({"name": "image"}, "'image', uint8 of 1x16x24x3"),
        ({"dtype": "float32"}, "'frame', float32 of 1x16x24x3"),
        ({"layout": "NCHW"}, "'frame', uint8 of 1x3x16x24"),
        ({"batch": 2}, "'frame', uint8 of 2x16x24x3"),
    ],
)
def test_a_contract_of_another_input_is_refused_before_anything_runs(model_path, backend, changes, said):
    pytest.importorskip(backend)
    other = dataclasses.replace(CONTRACT, input=dataclasses.replace(CONTRACT.input, **changes))
    words = (
        f"model.onnx takes 'frame', uint8 of 1x16x24x3, but its contract says {said}; give the contract of this model"
    )
    with pytest.raises(ContractError, match=re.escape(words)):
        load(model_path, contract=other, backend=backend)


def test_a_contract_of_another_output_fails_with_words(model_path):
    renamed = dataclasses.replace(CONTRACT, outputs=(OutputSpec(name="mask", kind="labels", stride=1),))
    with load(model_path, contract=renamed) as segmenter, pytest.raises(ModelFileError, match=r"'mask'.*gives logits"):
        segmenter(np.zeros((16, 24, 3), np.uint8))


def test_an_open_size_fits_any(tmp_path):
    frame = helper.make_tensor_value_info("frame", TensorProto.UINT8, ["n", "rows", 24, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3, "rows", 24])
    nodes = [
        helper.make_node("Cast", ["frame"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["values"], ["logits"], perm=[0, 3, 1, 2]),
    ]
    graph = helper.make_graph(nodes, "open", [frame], [logits])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "open.onnx")
    with load(tmp_path / "open.onnx", contract=CONTRACT, backend="onnxruntime") as segmenter:
        assert segmenter(np.zeros((16, 24, 3), np.uint8)).labels.shape == (16, 24)


def test_threads_below_one(model_path):
    with pytest.raises(UsageError, match="threads is 0"):
        load(model_path, threads=0)


def test_missing_model(tmp_path):
    with pytest.raises(ModelFileError, match=r"nothing\.onnx is not a file"):
        load(tmp_path / "nothing.onnx")


def test_contract_file_that_is_none(tmp_path):
    with pytest.raises(ContractError, match=r"the contract .* cannot be read: No such file"):
        read_contract_file(tmp_path / "nothing.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ContractError, match=r"the contract .* cannot be read as UTF-8 text: .*utf-8"):
        read_contract_file(tmp_path / "binary.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ContractError, match=r"list\.json must be a JSON object"):
        read_contract_file(tmp_path / "list.json")


def test_import_is_light():
    heavy = "cv2 onnxruntime openvino onnx torch av tqdm transformers"
    code = f"import sys, sfpp.runtime; print([name for name in {heavy.split()} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_exist():
    assert all(hasattr(sfpp.runtime, name) for name in sfpp.runtime.__all__)
    assert {"load", "Segmenter", "Segmentation", "Pose", "PoseEstimator", "ModelContract", "SfppError"} <= set(
        sfpp.runtime.__all__
    )
