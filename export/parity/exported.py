"""Does a written model answer as PyTorch does? Run both on the same frame and compare."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sfpp.export.deployable import Network, answer_of
from sfpp.export.models.recipe import Recipe
from sfpp.export.parity.differences import output_error
from sfpp.export.parity.pinning import PinnedMatching
from sfpp.export.parity.probed_model import AttentionTokens, run_with_probes
from sfpp.export.parity.report import TOLERANCES
from sfpp.runtime.agreement import label_agreement
from sfpp.runtime.contract import InputSpec, ModelContract, OutputKind
from sfpp.runtime.errors import CheckpointError, VerificationError
from sfpp.runtime.pixels.nv12 import bgr_from_nv12

# float32 in another order of summation stays within this part of the largest logit (measured: about 1e-5).
MAX_ERROR = 1e-4
MATCHING_GAP, LABEL_AGREEMENT = TOLERANCES["fp32"].gap, TOLERANCES["fp32"].labels


@dataclass(frozen=True)
class PinnedReport:
    """Agreement with a PyTorch model that was given the graph's matching; see ``sfpp.export.parity.pinning``."""

    label_agreement: float
    matching_gap: float
    max_error: float | None = None


@dataclass(frozen=True)
class ParityReport:
    """Agreement of an exported model with the learned one on one input.

    ``max_error`` and ``mean_error`` are absolute, in logits, and None where the model gives labels;
    ``largest_logit`` is the scale to see them against; ``label_agreement`` is the fraction of equal labels, or of
    heatmaps with their maximum in the same cell. ``pinned`` is there where bipartite matching met near ties.
    """

    label_agreement: float
    tokens: tuple[AttentionTokens, ...]
    max_error: float | None = None
    mean_error: float | None = None
    largest_logit: float | None = None
    pinned: PinnedReport | None = None

    def failures(self) -> list[str]:
        """Return what is out of tolerance, in words; empty when the model agrees."""
        # The free comparison does not count beside a pinned one: on a blank image, where any partner is as good as any
        # other, two sound implementations agree on as little as 97 % of the labels. What is left to go wrong is all
        # there: each choice must be a best one, and everything else as exact as without merging.
        seen, problems = self.pinned or self, []
        if not seen.label_agreement >= LABEL_AGREEMENT:
            problems.append(f"labels agree on {seen.label_agreement:.3%} of the pixels, expected {LABEL_AGREEMENT:.1%}")
        limit = MAX_ERROR * max(1.0, self.largest_logit or 0.0)
        if seen.max_error is not None and not seen.max_error <= limit:
            problems.append(f"the maximum error is {seen.max_error:.2e}, expected at most {limit:.0e}")
        if self.pinned is not None and not self.pinned.matching_gap <= MATCHING_GAP:
            problems.append(
                f"tokens are merged with partners that are {self.pinned.matching_gap:.1e} less similar than the best "
                f"ones, expected at most {MATCHING_GAP:.0e}"
            )
        return problems

    def summary(self) -> str:
        """Return the figures in one line."""
        errors = "" if self.max_error is None else f"max error {self.max_error:.1e}, mean {self.mean_error:.1e}, "
        line = f"{errors}labels agree on {self.label_agreement:.2%}"
        if self.pinned is None:
            return line
        error = "" if self.pinned.max_error is None else f"max error {self.pinned.max_error:.1e}, "
        return f"{line}; with near ties settled alike: {error}labels {self.pinned.label_agreement:.2%}"


def compare_with_pytorch(
    path: Path, model: Network, recipe: Recipe, contract: ModelContract, frames: NDArray[Any]
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
        CheckpointError: PyTorch's own answer has values that are not finite numbers.
    """
    kind = contract.outputs[0].kind
    run = run_with_probes(path, contract, frames)
    expected = _run_pytorch(model, recipe, contract, frames)
    report = _compare(expected, run.answer, run.tokens, kind)
    if not run.matchings or not report.failures():
        return report
    with PinnedMatching(run.matchings) as pin:
        pinned = _compare(_run_pytorch(model, recipe, contract, frames), run.answer, run.tokens, kind)
    return replace(report, pinned=PinnedReport(pinned.label_agreement, pin.worst_gap, pinned.max_error))


def _compare(
    expected: NDArray[Any], answer: NDArray[Any], tokens: tuple[AttentionTokens, ...], kind: OutputKind
) -> ParityReport:
    """Compare logits or heatmaps (batch, channels, h, w), labels (batch, height, width) or masks (with classes)."""
    if kind in ("labels", "masks"):
        return ParityReport(label_agreement(answer, expected), tokens)
    error, agreement = output_error(answer, expected), label_agreement(_decided(answer, kind), _decided(expected, kind))
    return ParityReport(agreement, tokens, error.largest, error.mean, error.scale)


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


def _decided(values: NDArray[Any], kind: OutputKind) -> NDArray[Any]:
    """Return what a user sees of the values: each pixel's class, or the cell of each keypoint's maximum."""
    by_map = values.reshape(*values.shape[:2], -1)
    decided: NDArray[Any] = by_map.argmax(-1) if kind == "heatmaps" else values.argmax(1)
    return decided


def _run_pytorch(model: Network, recipe: Recipe, contract: ModelContract, frames: NDArray[Any]) -> NDArray[Any]:
    """Return the learned model's logits or labels; normalization is done here once more, apart from the graph's.

    Raises:
        CheckpointError: the logits are not finite numbers, so that nothing could be compared.
    """
    spec = contract.input
    image = torch.from_numpy(_pixels(frames, spec)).to(torch.float32)
    if spec.normalized_in_graph:
        image = (image - torch.tensor(spec.mean)) / torch.tensor(spec.std)
    if spec.layout != "NCHW":
        image = image.permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        logits: torch.Tensor = model(image, recipe)
        if not torch.isfinite(logits).all():
            raise CheckpointError(
                "the network of these weights gives values that are not finite numbers for the check image, in "
                "PyTorch too: the training diverged or the file is damaged; give an earlier checkpoint"
            )
        output = contract.outputs[0]
        return answer_of(
            logits, output.kind, spec.size_hw, align_corners=output.align_corners, threshold=contract.threshold
        ).numpy()


def _pixels(frames: NDArray[Any], spec: InputSpec) -> NDArray[Any]:
    """Return an input as it is, and NV12 in colors, (batch, height, width, 3) in the spec's order."""
    if spec.matrix is None:
        return frames
    images = np.stack([bgr_from_nv12(frame, spec.matrix) for frame in frames])
    return images if spec.color_order == "BGR" else np.ascontiguousarray(images[..., ::-1])
