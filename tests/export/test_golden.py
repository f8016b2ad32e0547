"""The reference models' answers, through PyTorch and through the exported graph."""

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from sfpp.export import export_onnx
from sfpp.export.catalog import variant_by_name, variant_for
from sfpp.export.checkpoints import read_checkpoint
from sfpp.export.to_onnx import graph_from_model, learned_model
from sfpp.runtime.backends import BackendOptions, OpenVinoBackend
from sfpp.runtime.contract import METADATA_KEY, contract_from_json
from sfpp.runtime.onnx_file import metadata_of
from tests.golden import FOLDER, golden_cases
from tests.tensorrt_rtx import build_engine

CASES = golden_cases("")
pytestmark = pytest.mark.skipif(not CASES, reason=f"no golden cases in {FOLDER}")


# Of each network and recipe one size is enough for every target, every backend and TensorRT.
WHOLE = list({case.name.rpartition("_")[0]: case for case in reversed(CASES)}.values())
# The graphs of these take a minute to make and run, or differ from others in strides or sizes alone.
SLOW = (
    *("b5", "b2", "b1", "edaformer_b", "edaformer_t_2222-222", "edaformer_t_1111-111"),
    *("hq_250x333", "2x2_250x333", "fast_250x333", "b0_none", "pose_b0_hq"),
)
# What the targets spell in different ways beside merging, which tests of the targets hold.
QUICK_EVERYWHERE = "edaformer_t_2211-222"


def cases(chosen, *, slow):
    """Return the cases for a test, those that ``slow`` picks marked as such."""
    return [pytest.param(case, marks=[pytest.mark.slow] * slow(case.name), id=case.name) for case in chosen]


@pytest.mark.parametrize("case", cases(CASES, slow=lambda name: any(map(name.count, SLOW))))
def test_golden_case(case, tmp_path):
    """In PyTorch, and in the exported graph."""
    weights, variant = case.save_checkpoint(tmp_path), case.variant(tmp_path)

    checkpoint = read_checkpoint(weights)
    spec = case.facts["input"]
    image = (torch.from_numpy(case.frame_rgb).float() - torch.tensor(spec["mean"])) / torch.tensor(spec["std"])
    with torch.no_grad():
        logits = learned_model(checkpoint)(image.permute(2, 0, 1)[None], recipe_of(checkpoint, variant))
    case.assert_close(logits.numpy())

    report = export_onnx(weights, tmp_path / "model.onnx", res=size_of(case), **variant)
    case.assert_close(run_in_onnxruntime(report.path, case.frame_rgb))

    contract = contract_from_json(metadata_of(report.path)[METADATA_KEY])
    assert contract == report.contract
    assert contract.size == case.facts["backbone"].removeprefix("eft_")
    assert contract.task == case.facts.get("task", "segmentation")
    assert contract.input.size_hw == case.frame_rgb.shape[:2]


@pytest.mark.parametrize("case", cases(WHOLE, slow=lambda name: not name.startswith(QUICK_EVERYWHERE)))
def test_golden_case_everywhere(case, tmp_path):
    """In the graph for each target, in every backend that takes it."""
    weights, variant = case.save_checkpoint(tmp_path), case.variant(tmp_path)
    report = export_onnx(weights, tmp_path / "model.onnx", res=size_of(case), **variant)
    case.assert_close(run_in_openvino(report.path, case.frame_rgb))

    checkpoint = read_checkpoint(weights)
    other = dataclasses.replace(report.contract, target="onnxruntime")
    graph = graph_from_model(learned_model(checkpoint), recipe_of(checkpoint, variant), other, case.frame_rgb[None])
    onnx.save(graph, tmp_path / "onnxruntime.onnx")
    case.assert_close(run_in_onnxruntime(tmp_path / "onnxruntime.onnx", case.frame_rgb))


@pytest.mark.parametrize("case", cases(WHOLE, slow=lambda name: not name.startswith(QUICK_EVERYWHERE)))
def test_golden_case_in_any_batch(case, tmp_path):
    """One file, and the frame in the last place of one, two, three and eight: the others are other frames."""
    weights, variant = case.save_checkpoint(tmp_path), case.variant(tmp_path)
    path = export_onnx(weights, tmp_path / "model.onnx", res=size_of(case), batch="1..8", **variant).path
    for frames in (1, 2, 3, 8):
        batch = np.stack([np.roll(case.frame_rgb, 7 * index, axis=1) for index in reversed(range(frames))])
        for run in (run_in_onnxruntime, run_in_openvino):
            answers = run(path, batch)
            assert len(answers) == frames
            case.assert_close(answers[-1:])


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(WHOLE, slow=lambda name: False))
def test_tensorrt_rtx_builds_golden_cases(case, tmp_path):
    weights, variant = case.save_checkpoint(tmp_path), case.variant(tmp_path)
    assert build_engine(export_onnx(weights, tmp_path / "model.onnx", res=size_of(case), **variant).path)


def size_of(case):
    return f"{case.facts['input']['width']}x{case.facts['input']['height']}"


def recipe_of(checkpoint, variant):
    return variant_for(checkpoint.family, variant.get("variant", "original"), variant.get("isr")).recipe


def run_in_onnxruntime(path, frames_rgb):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"frame": frames_rgb.reshape(-1, *frames_rgb.shape[-3:])})[0]


def run_in_openvino(path, frames_rgb):
    backend = OpenVinoBackend(path, BackendOptions(precision="fp32", cache=False))
    return next(iter(backend.run({"frame": frames_rgb.reshape(-1, *frames_rgb.shape[-3:])}).values()))


def test_golden_cases_tell_a_wrong_merge(tmp_path):
    """The tolerance is tight enough: the same weights with another recipe miss it."""
    case = next(each for each in CASES if each.name == "segformerpp_b0_hq_256x320")
    model = learned_model(read_checkpoint(case.save_checkpoint(tmp_path)))
    image = torch.from_numpy(case.frame_rgb).float()
    image = (image - torch.tensor(case.facts["input"]["mean"])) / torch.tensor(case.facts["input"]["std"])
    with torch.no_grad():
        logits = model(image.permute(2, 0, 1)[None], variant_by_name("fast").recipe).numpy()
    assert np.abs(logits - case.output).max() > 0.1
