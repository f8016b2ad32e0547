"""Does a written model answer as PyTorch does? Run both on the same frame and compare."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from sfpp.export.models.recipe import Bipartite, MergingRecipe
from sfpp.export.models.segformer import SegFormer
from sfpp.runtime.contract import InputSpec, ModelContract
from sfpp.runtime.errors import MissingDependencyError, VerificationError

# Without bipartite matching the network is continuous, and float32 in another order of summation stays within this part
# of the largest logit (measured: about 1e-5).
MAX_ERROR = 1e-4
# With it, two nearly equal similarities may swap, which moves single logits but neither the mean nor the labels.
MEAN_ERROR = 1e-3
LABEL_AGREEMENT = 0.999


@dataclass(frozen=True)
class AttentionTokens:
    """How many query and key/value tokens one attention really worked on, measured while the graph ran."""

    name: str
    query: int
    key_value: int


@dataclass(frozen=True)
class ParityReport:
    """Agreement of an exported model with the learned one on one input.

    ``max_error`` and ``mean_error`` are absolute, in logits, and None where the model answers with labels;
    ``largest_logit`` is the scale to see them against; ``label_agreement`` is the fraction of equal labels.
    """

    label_agreement: float
    tokens: tuple[AttentionTokens, ...]
    exact_matching: bool
    max_error: float | None = None
    mean_error: float | None = None
    largest_logit: float | None = None

    def failures(self) -> list[str]:
        """Return what is out of tolerance, in words; empty when the model agrees."""
        problems = []
        if not self.label_agreement >= LABEL_AGREEMENT:
            problems.append(f"labels agree on {self.label_agreement:.3%} of the pixels, expected {LABEL_AGREEMENT:.1%}")
        if self.max_error is not None and self.mean_error is not None and self.largest_logit is not None:
            scale = max(1.0, self.largest_logit)
            limits = {"mean": (self.mean_error, MEAN_ERROR)}
            if not self.exact_matching:
                limits["maximum"] = (self.max_error, MAX_ERROR)
            for name, (error, limit) in limits.items():
                if not error <= limit * scale:
                    problems.append(f"the {name} error is {error:.2e}, expected at most {limit * scale:.0e}")
        return problems

    def summary(self) -> str:
        """Return the figures in one line."""
        errors = "" if self.max_error is None else f"max error {self.max_error:.1e}, mean {self.mean_error:.1e}, "
        return f"{errors}labels agree on {self.label_agreement:.2%}"


def compare_with_pytorch(
    path: Path, model: SegFormer, recipe: MergingRecipe, contract: ModelContract, frames: NDArray[Any]
) -> ParityReport:
    """Run the ONNX file at ``path`` and the learned model on the same input.

    Args:
        path: the exported model.
        model: the learned network that it was made from, in evaluation mode.
        recipe: the merging that it was exported with.
        contract: the exported model's contract.
        frames: an input for the graph, of the contract's shape and type.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        VerificationError: the file does not run.
    """
    answer, tokens = _run_graph(path, contract, frames)
    reference = _run_pytorch(model, recipe, contract.input, frames)
    matching = any(isinstance(side, Bipartite) for stage in recipe.stages for side in (stage.query, stage.key_value))
    if contract.outputs[0].kind == "labels":
        raised = F.interpolate(reference, size=contract.input.size_hw, mode="bilinear", align_corners=False)
        agreement = float(np.mean(raised.argmax(1).numpy() == answer))
        return ParityReport(agreement, tokens, matching)
    expected = reference.numpy()
    difference = np.abs(expected - answer)
    return ParityReport(
        label_agreement=float(np.mean(expected.argmax(1) == answer.argmax(1))),
        tokens=tokens,
        exact_matching=matching,
        max_error=float(difference.max()),
        mean_error=float(difference.mean()),
        largest_logit=float(np.abs(expected).max()),
    )


def require_parity(report: ParityReport, path: Path) -> None:
    """Raise unless the report is within tolerance.

    Raises:
        VerificationError: it is not; nothing should be left of the file.
    """
    if problems := report.failures():
        raise VerificationError(
            f"{path.name} does not agree with PyTorch: {'; '.join(problems)}. The file was not kept. If the weights "
            "are sound, this is a bug in sfpp: please report it with the command"
        )


def require_tokens(report: ParityReport, expected: list[tuple[int, int]]) -> None:
    """Raise unless each attention saw the (query, key/value) tokens that the recipe promises, in network order.

    Raises:
        VerificationError: some attention saw another number.
    """
    seen = [(each.query, each.key_value) for each in report.tokens]
    if seen != expected:
        raise VerificationError(f"merging is not in the graph as planned: attentions saw {seen}, planned {expected}")


def _run_pytorch(model: SegFormer, recipe: MergingRecipe, spec: InputSpec, frames: NDArray[Any]) -> torch.Tensor:
    """Return the learned model's logits; normalization is done here once more, apart from the graph's."""
    image = torch.from_numpy(frames).to(torch.float32)
    if spec.normalized_in_graph:
        image = (image - torch.tensor(spec.mean)) / torch.tensor(spec.std)
    if spec.layout == "NHWC":
        image = image.permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        logits: torch.Tensor = model(image, recipe)
    return logits


def _run_graph(
    path: Path, contract: ModelContract, frames: NDArray[Any]
) -> tuple[NDArray[Any], tuple[AttentionTokens, ...]]:
    """Run the file with a probe at each attention that reports the shapes it meets."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError("onnxruntime", extra="export", purpose="checking the exported model") from error
    model = onnx.load(str(path))
    probes = _add_probes(model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # one run: an arena would only hold memory that nobody asks for again
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        answer, *shapes = session.run([contract.outputs[0].name, *probes], {contract.input.name: frames})
    except Exception as error:
        raise VerificationError(f"the exported graph does not run in ONNX Runtime: {error}") from error
    pairs = zip(probes[::2], shapes[::2], shapes[1::2], strict=True)
    tokens = tuple(AttentionTokens(name.rpartition("/")[0], int(q[-2]), int(k[-1])) for name, q, k in pairs)
    return answer, tokens


def _add_probes(model: onnx.ModelProto) -> list[str]:
    """Add a Shape output for the query and the key heads of each attention; returns their names, in pairs."""
    names = []
    for node in list(model.graph.node):
        if node.name.endswith(("/query_heads", "/key_heads")):
            name = f"{node.name}_shape"
            model.graph.node.append(onnx.helper.make_node("Shape", [node.output[0]], [name]))
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [4]))
            names.append(name)
    # The two nodes of an attention may stand in either order, and those of two attentions never mix.
    return sorted(names, key=lambda name: (_block_order(name), name.endswith("/key_heads_shape")))


def _block_order(name: str) -> list[int]:
    return [int(part.rpartition(".")[2]) for part in name.split("/") if part.rpartition(".")[2].isdigit()]
