"""The graphs: exported here, sent without their weights, and filled again, to the bit, where they run.

The checkpoint follows a rule (:func:`benchmarks.speed.models.save_checkpoint`), so it is made where it is needed, and
each large constant of a graph says which tensor of it fills it. What the export computes from several of them travels.

Tracing runs each network once at its size, so the whole matrix takes most of an hour on two cores. Nothing is compared
with PyTorch here, as ``sfpp-export`` does it: measuring does that, on the card.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from safetensors.numpy import load_file

from benchmarks.gpu.matrix import Graph, Group, graphs_of
from benchmarks.gpu.parts import GRAPHS, LIBRARIES, PYTHON, Parts, fetch_libraries, requirements
from benchmarks.speed.models import export_transformers, save_checkpoint
from benchmarks.speed.results import TRANSFORMERS
from sfpp.calibration.fp16.float_types import rounded_to_float16
from sfpp.calibration.fp16.fp16_model import fp16_model
from sfpp.export.checkpoints import read_checkpoint
from sfpp.export.contracts import contract_for, variant_from
from sfpp.export.costs import multiply_adds
from sfpp.export.deployable import with_rewritten_blocks
from sfpp.export.models.segformer import SegFormer
from sfpp.export.settings import ExportSettings, resolution_from
from sfpp.export.to_onnx import graph_from_model, learned_model, with_contract
from sfpp.runtime.contract import METADATA_KEY, contract_from_json
from sfpp.runtime.errors import ModelFileError
from sfpp.runtime.files import whole_file

_SMALLEST_BYTES = 4096  # smaller constants stay
_FUSION = "decode_head.linear_fuse.weight"
_NORM = "decode_head.batch_norm"


class Weights:
    """Tensors by name, and which of them a constant of a graph is."""

    def __init__(self, tensors: Mapping[str, NDArray[np.float32]]) -> None:
        self._tensors = dict(tensors)
        self._rules: dict[tuple[int, bytes], str] = {}

    @property
    def sha256(self) -> str:
        """Of all names and values."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self._tensors.items()):
            digest.update(name.encode())
            digest.update(tensor.tobytes())
        return digest.hexdigest()

    def strip(self, model: onnx.ModelProto) -> int:
        """Take every constant out of a model that a tensor can fill again; return how many bytes that saves."""
        saved = 0
        for constant in model.graph.initializer:
            content = numpy_helper.to_array(constant).tobytes()
            rule = self._rule(constant.data_type, content) if len(content) >= _SMALLEST_BYTES else None
            if rule is not None:
                constant.ClearField("raw_data")
                constant.doc_string = rule
                saved += len(content)
        return saved

    def fill(self, model: onnx.ModelProto) -> None:
        """Put back what :meth:`strip` took out.

        Raises:
            ModelFileError: the graph names a tensor that this checkpoint does not have.
        """
        for constant in model.graph.initializer:
            if constant.doc_string:
                rule = json.loads(constant.doc_string)
                if rule["of"] not in self._tensors:
                    raise ModelFileError(f"{constant.name!r} is made of {rule['of']!r}, which the checkpoint lacks")
                constant.raw_data = self._content(rule["of"], constant.data_type, transposed=rule["transposed"])
                constant.ClearField("doc_string")

    def _rule(self, data_type: int, content: bytes) -> str | None:
        if data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
            return None
        if not any(known == data_type for known, _ in self._rules):
            self._learn(data_type)
        return self._rules.get((data_type, hashlib.sha256(content).digest()))

    def _learn(self, data_type: int) -> None:
        """Note what each tensor's bytes would be in a type; the shape is the graph's affair."""
        for name, tensor in self._tensors.items():
            for transposed in (False, True) if tensor.ndim == 2 else (False,):
                content = self._content(name, data_type, transposed=transposed)
                rule = json.dumps({"of": name, "transposed": transposed})
                self._rules.setdefault((data_type, hashlib.sha256(content).digest()), rule)

    def _content(self, name: str, data_type: int, *, transposed: bool) -> bytes:
        tensor: NDArray[Any] = self._tensors[name]
        tensor = rounded_to_float16(tensor) if data_type == TensorProto.FLOAT16 else tensor
        return (tensor.T if transposed else tensor).tobytes()


def checkpoint_weights(network: str, folder: Path) -> Weights:
    """Return the tensors of a network's checkpoint, which is made in the folder if it is not there.

    Besides the library's own: how our network holds them, where that is more than another name, and what the exports
    compute from one of them alone, which gives the same bits everywhere; sums would not.
    """
    if not (folder / "config.json").is_file():
        save_checkpoint(network, folder)
    theirs = load_file(folder / "model.safetensors")
    gain = theirs[f"{_NORM}.weight"] / np.sqrt(theirs[f"{_NORM}.running_var"] + np.float32(1e-5))
    model = learned_model(read_checkpoint(folder))
    assert isinstance(model, SegFormer)
    rewritten = with_rewritten_blocks(model.encoder).state_dict()
    return Weights(
        {
            **{f"theirs/{name}": tensor for name, tensor in theirs.items()},
            "theirs/fusion with batch norm": theirs[_FUSION] * gain[:, None, None, None],
            **{f"ours/{name}": tensor.numpy() for name, tensor in model.state_dict().items() if "key_value" in name},
            **{f"ours/{name}, scaled": tensor.numpy() for name, tensor in rewritten.items() if "query.weight" in name},
        }
    )


def prepare(
    parts: Parts, groups: Sequence[Group], *, libraries: bool, fresh: bool, notify: Callable[[str], object]
) -> None:
    """Make what is missing and pack it.

    Args:
        parts: the folder to work in.
        groups: what will be measured.
        libraries: whether to pack those too; they are fetched once for each version.
        fresh: make graphs anew that are there, as after a change of the export.
        notify: called with lines that say what is being done.

    Raises:
        SfppError: the libraries cannot be fetched.
    """
    graphs = graphs_of(groups)
    digests = dict(parts.known.get("weights", {}))  # graphs of other networks stay in the folder
    for network in dict.fromkeys(graph.network for graph in graphs):
        of_network = [graph for graph in graphs if graph.network == network]
        digests[network] = _export(parts, of_network, network, fresh=fresh, notify=notify)
    notify("packing the graphs")
    parts.pack(GRAPHS, weights=digests)
    wanted = {"python": PYTHON, "libraries": requirements()}
    if libraries and not parts.is_packed(LIBRARIES, **wanted):
        notify("fetching the libraries")
        fetch_libraries(parts.content(LIBRARIES))
        notify("packing the libraries, which takes minutes")
        parts.pack(LIBRARIES, **wanted)


def _export(
    parts: Parts, graphs: Sequence[Graph], network: str, *, fresh: bool, notify: Callable[[str], object]
) -> str:
    """Export what is missing of a network's graphs; return the digest of its weights."""
    folder, checkpoint = parts.content(GRAPHS), parts.folder / "checkpoints" / network
    folder.mkdir(parents=True, exist_ok=True)
    if fresh:
        shutil.rmtree(checkpoint, ignore_errors=True)
    weights = checkpoint_weights(network, checkpoint)
    missing = [graph for graph in graphs if fresh or not (folder / graph.file_name).is_file()]
    for size, name in dict.fromkeys((graph.size, graph.name) for graph in missing):
        alike = [graph for graph in missing if (graph.size, graph.name) == (size, name)]
        notify(f"exporting {' and '.join(graph.file_name for graph in alike)}")
        write_stripped(alike, checkpoint, weights, folder)
    return weights.sha256


def write_stripped(graphs: Sequence[Graph], checkpoint: Path, weights: Weights, folder: Path) -> None:
    """Export once and write in each precision, without the weights; the graphs differ in nothing else."""
    first = graphs[0]
    exported = _theirs(first, checkpoint) if first.name == TRANSFORMERS else _ours(first, checkpoint)
    # The exported one itself comes last, since taking its weights out leaves nothing to convert.
    for graph in sorted(graphs, key=lambda graph: graph.precision != "fp16"):
        model = _in_fp16(exported, graph.file_name) if graph.precision == "fp16" else exported
        weights.strip(model)
        with whole_file(folder / graph.file_name) as temporary:
            onnx.save(model, str(temporary))


def _theirs(graph: Graph, checkpoint: Path) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / graph.file_name
        export_transformers(checkpoint, path, network=graph.network, size=resolution_from(graph.size))
        return onnx.load(str(path))


def _ours(graph: Graph, folder: Path) -> onnx.ModelProto:
    """As ``export_onnx`` does it, without its check on this machine's CPU."""
    checkpoint = read_checkpoint(folder)
    settings = ExportSettings(
        graph.variant,
        matching=graph.matching,
        target=graph.target,
        res=graph.size,
        output=graph.output,
        resize="stretch",
    )
    variant = variant_from(settings, checkpoint)
    contract = contract_for(checkpoint, variant, settings)
    example = np.zeros(contract.input.shape, np.uint8)
    model = graph_from_model(learned_model(checkpoint), variant.recipe, contract, example)
    contract = dataclasses.replace(contract, multiply_adds=multiply_adds(model).total())
    return with_contract(model, contract)


def _in_fp16(model: onnx.ModelProto, origin: str) -> onnx.ModelProto:
    """Convert as ``sfpp-calibrate`` does where float16 holds all values, and theirs in the same way."""
    texts = {each.key: each.value for each in model.metadata_props}
    contract = contract_from_json(texts[METADATA_KEY], origin=origin)
    return with_contract(fp16_model(model), dataclasses.replace(contract, precision="fp16"))
