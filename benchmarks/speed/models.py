"""The files that the speed benchmark compares: one random checkpoint of the Transformers library, exported twice.

Its own export is what a user gets who calls ``torch.onnx.export`` on the library's model; ours reads the same folder.
Both files say in a contract what they take, so the runtime feeds them the same picture.
"""

from __future__ import annotations

import math
import warnings
import zlib
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from benchmarks.speed.results import LOCAL
from sfpp.export import export_onnx
from sfpp.export.catalog import MIT_SIZES
from sfpp.export.costs import multiply_adds
from sfpp.export.settings import Resolution
from sfpp.export.to_onnx import with_contract
from sfpp.runtime.contract import InputSpec, MatchingRule, ModelContract, OutputSpec, Target

CLASSES = 19  # as Cityscapes, on which the papers measure
_DECODER_CHANNELS = {"b0": 256, "b1": 256}  # the larger ones have 768
_BATCH_NORM_EPS = 1e-5
_REDUCTION = 8  # of keys and values in stage 1


def save_checkpoint(network: str, folder: Path) -> Path:
    """Save a network of the size ``b0`` to ``b5``, with random weights by a fixed rule, as a Transformers folder."""
    import transformers

    channels, depths = MIT_SIZES[network]
    config = transformers.SegformerConfig(
        hidden_sizes=list(channels),
        depths=list(depths),
        num_attention_heads=[1, 2, 5, 8],
        decoder_hidden_size=_DECODER_CHANNELS.get(network, 768),
        num_labels=CLASSES,
    )
    transformers.logging.disable_progress_bar()
    model = transformers.SegformerForSemanticSegmentation(config).eval()
    _randomize(model)
    model.save_pretrained(folder)
    return folder


def _randomize(model: torch.nn.Module) -> None:
    """Give weights and statistics values under which the answer depends on the picture, the same on every machine."""
    with torch.no_grad():
        for name, values in model.state_dict().items():
            if name.endswith("running_mean"):
                values.copy_(_normal(name, values, 0.1))
            elif name.endswith("running_var"):
                # Deviations of 1/2, 1 and 2: multiplied into a convolution they give the same bits in any order.
                powers = seeded_integers(name, values.numel()) % 3 - 1.0
                values.copy_(torch.from_numpy(4.0**powers - _BATCH_NORM_EPS).reshape(values.shape))
            elif values.ndim > 1:
                # As the library starts, with a standard deviation of 0.02, every softmax is flat: all tokens would be
                # alike after one attention, and no choice of partners could be wrong.
                values.copy_(_normal(name, values, 0.06))


def _normal(name: str, like: torch.Tensor, deviation: float) -> torch.Tensor:
    """Return values that are nearly normal, of another tensor's shape: sums of four even ones."""
    sums = seeded_integers(name, 4 * like.numel()).reshape(-1, 4).sum(1)
    # Whole numbers up to the one product, which IEEE rounds alike everywhere; a logarithm would differ between systems.
    values = (sums - 4 * (2**16 - 1) // 2).astype(np.float32) * np.float32(deviation / (2**16 * math.sqrt(4 / 12)))
    return torch.from_numpy(values).reshape(like.shape)


def seeded_integers(name: str, count: int) -> NDArray[np.int64]:
    """Return ``count`` integers, evenly from 0 to 65535, that depend on the name alone."""
    # numpy promises the bits of a generator for all versions, but not what its distributions make of them.
    words = np.random.PCG64(zlib.crc32(name.encode())).random_raw(-(-count // 4))
    return words.astype("<u8").view("<u2")[:count].astype(np.int64)


def export_transformers(checkpoint: Path, path: Path, *, network: str, size: Resolution) -> ModelContract:
    """Export the library's model at a fixed size as ``torch.onnx`` does it, and add a contract; return that.

    The tracing exporter, opset 17: what the newer one writes was tried and ran alike.
    """
    import transformers

    # In its default attention (PyTorch's fused one), which the exporter writes out as products and a softmax.
    model = transformers.SegformerForSemanticSegmentation.from_pretrained(checkpoint)
    example = torch.zeros(1, 3, size.height, size.width)
    # A wrapper is in training mode until it is told otherwise, and the exporter would keep batch norm as in training.
    wrapper = _Logits(model).eval()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the tracer warns of every size that becomes a constant, which is the wish
        torch.onnx.export(
            wrapper,
            (example,),
            str(path),
            opset_version=17,
            dynamo=False,
            input_names=["pixel_values"],
            output_names=["logits"],
        )
    graph = onnx.load(str(path))
    count = multiply_adds(onnx.shape_inference.infer_shapes(graph, data_prop=True)).total()
    contract = transformers_contract(network, size, multiply_adds=count)
    # The graph itself stays as it was written: inferred shapes are for the count alone.
    onnx.save(with_contract(graph, contract), str(path))
    return contract


def transformers_contract(network: str, size: Resolution, *, multiply_adds: int | None = None) -> ModelContract:
    """Return what the library's model takes and gives: (1, 3, height, width) float32 RGB, normalized by the caller."""
    spec = InputSpec(
        "pixel_values",
        size.height,
        size.width,
        layout="NCHW",
        dtype="float32",
        normalized_in_graph=False,
        resize="stretch",
    )
    return ModelContract(
        task="segmentation",
        family="segformer",
        size=network,
        variant="transformers",
        input=spec,
        outputs=(OutputSpec("logits", "logits", 4),),
        classes=tuple(f"class {index}" for index in range(CLASSES)),
        palette=((0, 0, 0),) * CLASSES,
        multiply_adds=multiply_adds,
    )


class _Logits(torch.nn.Module):
    """The library's model with a tensor, not an object, as its answer."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Map (1, 3, H, W) to (1, classes, H / 4, W / 4), float32 both."""
        logits: torch.Tensor = self.model(pixel_values=pixel_values).logits
        return logits


def export_ours(checkpoint: Path, path: Path, *, variant: str, backend: str, size: Resolution) -> ModelContract:
    """Export a variant, ``fast`` or ``fast:local``, for a backend; return its contract.

    Raises:
        SfppError: there is no such variant, or the graph does not agree with PyTorch.
    """
    name, local, _ = variant.partition(LOCAL)
    matching: MatchingRule | None = "local" if local else None
    target = cast(Target, target_of(backend))
    return export_onnx(
        checkpoint, path, variant=name, matching=matching, target=target, res=size, resize="stretch"
    ).contract


def target_of(backend: str) -> str:
    """Return what our graph is written for when a library runs it."""
    return "onnxruntime" if backend.startswith("onnxruntime") else "openvino"


def score_bytes(size: Resolution) -> int:
    """Return the bytes of the largest matrix of attention scores in float32, that of stage 1.

    Stage 1 has one head, a token for each 4x4 pixels, and keys for each 8x8 of those. The later stages have more heads,
    and still fewer scores.
    """
    rows, columns = ((side + 3) // 4 for side in (size.height, size.width))
    return 4 * rows * columns * (rows // _REDUCTION) * (columns // _REDUCTION)
