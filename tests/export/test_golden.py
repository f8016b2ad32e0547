"""The reference models' answers, through PyTorch and through the exported graph."""

import numpy as np
import onnxruntime
import pytest
import torch

from sfpp.export import export_onnx
from sfpp.export.catalog import variant_by_name, variant_for
from sfpp.export.checkpoints import read_checkpoint
from sfpp.export.to_onnx import learned_model
from sfpp.runtime.contract import METADATA_KEY, contract_from_json
from tests.golden import FOLDER, golden_cases
from tests.tensorrt_rtx import build_engine

CASES = golden_cases("")
pytestmark = pytest.mark.skipif(not CASES, reason=f"no golden cases in {FOLDER}")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden_case(case, tmp_path):
    weights, variant = case.save_checkpoint(tmp_path), case.variant(tmp_path)

    checkpoint = read_checkpoint(weights)
    model = learned_model(checkpoint)
    spec = case.facts["input"]
    image = (torch.from_numpy(case.frame_rgb).float() - torch.tensor(spec["mean"])) / torch.tensor(spec["std"])
    recipe = variant_for(checkpoint.family, variant.get("variant", "original"), variant.get("isr")).recipe
    with torch.no_grad():
        case.assert_close(model(image.permute(2, 0, 1)[None], recipe).numpy())

    size = f"{spec['width']}x{spec['height']}"
    report = export_onnx(weights, tmp_path / "model.onnx", res=size, **variant)
    session = onnxruntime.InferenceSession(report.path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"frame": case.frame_rgb[None]})
    case.assert_close(logits)

    stored = session.get_modelmeta().custom_metadata_map[METADATA_KEY]
    contract = contract_from_json(stored)
    assert contract == report.contract
    assert contract.size == case.facts["backbone"].removeprefix("eft_")
    assert contract.task == case.facts.get("task", "segmentation")
    assert contract.input.size_hw == case.frame_rgb.shape[:2]
    assert build_engine(report.path)


def test_golden_cases_tell_a_wrong_merge(tmp_path):
    """The tolerance is tight enough: the same weights with another recipe miss it."""
    case = next(each for each in CASES if each.name == "segformerpp_b0_hq_256x320")
    model = learned_model(read_checkpoint(case.save_checkpoint(tmp_path)))
    image = torch.from_numpy(case.frame_rgb).float()
    image = (image - torch.tensor(case.facts["input"]["mean"])) / torch.tensor(case.facts["input"]["std"])
    with torch.no_grad():
        logits = model(image.permute(2, 0, 1)[None], variant_by_name("fast").recipe).numpy()
    assert np.abs(logits - case.output).max() > 0.1
