"""The self-test that an export stores: sound libraries pass it, planted faults do not."""

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from sfpp.export import export_onnx, to_onnx
from sfpp.export.demo import demo_frame, demo_person
from sfpp.export.parity.exported import ParityReport, PinnedReport
from sfpp.export.to_onnx import stored_self_test
from sfpp.runtime import load, read_image
from sfpp.runtime.contract import contract_from_json
from sfpp.runtime.self_test import self_test
from sfpp.runtime.self_test_data import unpacked
from tests.export.networks import randomized
from tests.export.parity.planted import contract_of, with_contract, with_normalization
from tests.runtime.planted import plant

CASES = {
    "original": {"res": "320x192"},
    "fast": {"variant": "fast", "res": "320x192"},
    "labels, local, batch": {"variant": "hq", "matching": "local", "output": "labels", "batch": 2, "res": "160x128"},
    "float32": {"variant": "2x2", "input": "float32", "res": "160x128", "resize": "stretch"},
    "pose": {"task": "pose"},
    "pose, fast, batch": {"task": "pose", "variant": "fast", "batch": 2},
}


# The others are of the same kinds; tests take them by name.
QUICK = [pytest.param(each, marks=[pytest.mark.slow] * (each in ("original", "pose, fast, batch"))) for each in CASES]


@pytest.fixture(scope="module")
def exported(demo_export):
    return lambda name: demo_export(**CASES[name])


def run_test(path, *, backend="onnxruntime", precision="fp32"):
    with load(path, backend=backend, precision=precision) as model:
        return self_test(model)


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_every_kind_of_export_passes_its_own_test(exported, name, backend):
    pytest.importorskip(backend)
    result = run_test(exported(name).path, backend=backend)
    assert result.agreement >= 0.998, result.text()
    assert result.threshold == 0.98


@pytest.mark.parametrize("name", QUICK)
def test_every_kind_of_export_is_replayed_on_first_use(exported, name, monkeypatch, tmp_path):
    monkeypatch.setenv("SFPP_CACHE", str(tmp_path))
    plant(monkeypatch)
    options = {"flip_test": True} if name.startswith("pose") else {}
    lines = []
    for _ in range(2):
        with load(exported(name).path, notify=lines.append, **options) as model:
            assert model.library.startswith("ONNX Runtime")
            assert model.self_test.outcome == "passed"
    assert ["Planted 1.0 on the CPU answers wrongly here" in line for line in lines] == [True, False, True]
    assert "first use here: self-test passed" in lines[1]


def test_the_contract_stays_small_and_the_same_after_json(exported):
    for name in ("fast", "pose"):
        report = exported(name)
        assert contract_of(onnx.load(report.path)) == report.contract
        text = report.contract.to_json()
        assert len(text) < 32_000
        assert contract_from_json(text) == report.contract


@pytest.mark.parametrize(("name", "picture"), [("fast", demo_frame()), ("pose", demo_person())])
def test_the_frame_shows_the_picture_and_the_answer_is_the_files(exported, name, picture):
    contract = exported(name).contract
    frame, answer = unpacked(contract.self_test, contract)
    height, width = frame.shape[:2]
    assert abs(width / height - contract.input.width / contract.input.height) < 0.02
    assert max(height, width) >= 112
    image = read_image(picture)
    # The middles of both show the same.
    assert np.abs(frame.mean(axis=(0, 1)) - image[:, 100:-100].mean(axis=(0, 1))).max() < 20
    if name == "fast":
        with load(exported(name).path, backend="onnxruntime") as model:
            np.testing.assert_array_equal(model(frame).labels, answer)
        assert len(np.unique(answer)) >= 5
    else:
        assert (answer[:, 2] > 0.1).sum() >= 9


def with_zeroed_block(source, path, block):
    """Write the file once more with all weights of one block's products zero."""
    model = onnx.load(source)
    stored = {each.name: each for each in model.graph.initializer}
    products = [n for n in model.graph.node if f"{block}/" in n.name and n.op_type in ("MatMul", "Gemm", "Conv")]
    for name in {name for node in products for name in node.input if name in stored}:
        values = numpy_helper.to_array(stored[name])
        stored[name].CopyFrom(numpy_helper.from_array(np.zeros_like(values), name))
    assert len(products) >= 6
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    "name",
    ["fast", "pose, fast, batch", *(pytest.param(each, marks=pytest.mark.slow) for each in ("original", "pose"))],
)
class TestPlantedFaults:
    @pytest.mark.parametrize("block", [f"stages.{stage}/blocks.{block}" for stage in range(4) for block in range(2)])
    def test_one_block_without_weights(self, tmp_path, exported, name, block):
        broken = with_zeroed_block(exported(name).path, tmp_path / "broken.onnx", block)
        result = run_test(broken)
        assert not result.passed, result.text()

    def test_red_and_blue_exchanged(self, tmp_path, exported, name):
        broken = with_contract(exported(name).path, tmp_path / "broken.onnx", input={"color_order": "BGR"})
        # Even where least is asked for.
        for backend, precision in (("onnxruntime", "fp32"), ("openvino", None)):
            pytest.importorskip(backend)
            result = run_test(broken, backend=backend, precision=precision)
            assert not result.passed, result.text()
            assert result.agreement < 0.6

    @pytest.mark.parametrize(
        ("mean", "std"),
        [
            ((0, 0, 0), (1, 1, 1)),
            ((0, 0, 0), (255, 255, 255)),
            ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
            ((103.53, 116.28, 123.675), (57.375, 57.12, 58.395)),
            ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ],
        ids=["none", "0..1", "-1..1", "blue first", "of 0..1"],
    )
    def test_another_normalization(self, tmp_path, exported, name, mean, std):
        broken = with_normalization(exported(name).path, tmp_path / "broken.onnx", mean, std)
        result = run_test(broken)
        assert not result.passed, result.text()


CALM = ParityReport(1.0, (), max_error=3e-5, mean_error=3e-6, largest_logit=40.0)
TIES = dataclasses.replace(CALM, max_error=0.3, mean_error=1e-3, pinned=PinnedReport(1.0, 0.0, 3e-5))


@pytest.mark.parametrize(
    ("parity", "asked"),
    [
        (CALM, False),
        (TIES, False),
        (dataclasses.replace(CALM, mean_error=1.0), False),
        (dataclasses.replace(TIES, mean_error=1.0), True),
        (dataclasses.replace(TIES, label_agreement=0.99), True),
        (dataclasses.replace(TIES, label_agreement=0.99, max_error=None, mean_error=None, largest_logit=None), True),
        (dataclasses.replace(TIES, max_error=None, mean_error=None, largest_logit=None), False),
    ],
)
def test_where_rounding_moves_the_answers_the_threshold_allows_for_it(exported, parity, asked):
    report, seen = exported("fast"), []

    def compare(frames):
        seen.append(frames)
        return dataclasses.replace(TIES, label_agreement=0.9)

    contract = dataclasses.replace(report.contract, self_test=None)
    test = stored_self_test(report.path, contract, read_image(demo_frame()), parity, compare=compare)
    assert test.threshold == (0.68 if asked else 0.98)
    assert dataclasses.replace(test, threshold=0.98) == report.contract.self_test
    assert [(each.shape, each.dtype) for each in seen] == [((1, 192, 320, 3), np.uint8)] * asked


def test_a_network_of_noise_passes_in_another_library_too(tmp_path, monkeypatch):
    """Its labels are a matter of rounding, as merging finds near ties everywhere: less is asked for then."""
    learned = to_onnx.learned_model
    monkeypatch.setattr(to_onnx, "learned_model", lambda checkpoint: randomized(learned(checkpoint), seed=10))
    report = export_onnx(path=tmp_path / "noise.onnx", variant="fast", res="320x192")
    assert report.contract.self_test.threshold < 0.95
    for backend in ("onnxruntime", "openvino"):
        pytest.importorskip(backend)
        result = run_test(report.path, backend=backend)
        assert result.passed, result.text()
