"""K-means in the graph against PyTorch's, in ONNX Runtime and OpenVINO: grids, batches, ties, empty cells."""

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from torch import nn

from sfpp.export.lowering.passes import lowered
from sfpp.export.lowering.symbolic import trace_to_onnx
from sfpp.export.models import token_merging as tm
from sfpp.export.models.attention import attend
from sfpp.export.models.recipe import KMeans

GRIDS = [((12, 16), 0.75), ((7, 10), 0.9), ((13, 9), 0.6), ((1, 9), 0.75), ((8, 1), 0.8), ((4, 5), 1.0)]


class Merging(nn.Module):
    """Merged tokens, their sizes, their copies, and attention to them, side by side; no weights but a projection."""

    def __init__(self, grid_hw, merging):
        super().__init__()
        self.grid_hw, self.merging = grid_hw, merging
        self.query = nn.Linear(6, 6)
        nn.init.eye_(self.query.weight)
        nn.init.zeros_(self.query.bias)

    def forward(self, tokens):
        merged, copy_back, sizes = tm.merge_tokens(tokens, self.grid_hw, self.merging)
        mixed = attend(self.query(tokens), merged, merged, 2, 0.5, tm.log_of_sizes(sizes))
        return torch.cat([merged.flatten(1), sizes, copy_back(merged).flatten(1), mixed.flatten(1)], dim=1)


def tokens_of(kind, count):
    tokens = torch.randn(2, count, 6, generator=torch.Generator().manual_seed(9))
    if kind == "alike":  # every cell is as near as any other, and most of them end up empty
        tokens[:] = torch.tensor([2.0, 0.0, 0.0, 0.0, 0.0, 0.0])  # of length 1 it is exact, and so are its sums
    elif kind == "half":
        tokens[1] = 0
    return tokens


@pytest.mark.parametrize("kind", ["random", "alike", "half"])
@pytest.mark.parametrize(("grid_hw", "ratio"), GRIDS)
def test_every_library_answers_as_pytorch(grid_hw, ratio, kind):
    tokens = tokens_of(kind, grid_hw[0] * grid_hw[1])
    module = Merging(grid_hw, KMeans(ratio, rounds=3)).eval()
    traced = trace_to_onnx(module, tokens, names=("tokens", "seen"), opset=17)
    with torch.no_grad():
        expected = module(tokens).numpy()
    for target in ("portable", "onnxruntime"):
        graph = lowered(traced, target).SerializeToString()
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        np.testing.assert_allclose(session.run(None, {"tokens": tokens.numpy()})[0], expected, rtol=1e-4, atol=1e-5)
    portable = openvino.Core().read_model(lowered(traced, "portable").SerializeToString())
    compiled = openvino.compile_model(portable, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(compiled([tokens.numpy()])[0], expected, rtol=1e-4, atol=1e-5)
