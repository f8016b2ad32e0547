"""Valid models to begin with: contracts, ONNX files of a few nodes, and a tiny network's checkpoint."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from sfpp.runtime.contract import METADATA_KEY, InputSpec, KeypointSpec, ModelContract, OutputSpec
from sfpp.runtime.self_test_data import packed

_HEIGHT, _WIDTH = 16, 24
_PLAIN = ModelContract(
    task="segmentation",
    family="segformer",
    size="b0",
    variant="fast",
    input=InputSpec(name="frame", height=_HEIGHT, width=_WIDTH),
    outputs=(OutputSpec(name="logits", kind="logits", stride=1),),
    classes=("red", "green", "blue"),
    palette=((255, 0, 0), (0, 255, 0), (0, 0, 255)),
    recipe=({"kv_mode": "bsm", "kv_r": 0.6}, {}, {}, {}),
)
_FRAME = np.full((8, 12, 3), 90, np.uint8)
CONTRACT = dataclasses.replace(_PLAIN, self_test=packed(_FRAME, np.zeros((8, 12), np.uint8), threshold=0.9))
POSE = dataclasses.replace(
    _PLAIN,
    task="pose",
    outputs=(OutputSpec(name="logits", kind="heatmaps", stride=1),),
    classes=(),
    palette=(),
    keypoints=KeypointSpec(names=("a", "b", "c"), skeleton=((0, 1),), flip_pairs=((0, 1),)),
    self_test=packed(_FRAME, np.zeros((3, 3), np.float32), threshold=0.9),
)
MULTI_LABEL = dataclasses.replace(_PLAIN, threshold=0.5, multi_label=True)


def onnx_bytes(contract=None, **metadata):
    """Return a file whose logits are the frame's own red, green and blue."""
    nodes = [
        helper.make_node("Cast", ["frame"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["wide"], ["logits"], perm=[0, 3, 1, 2]),
    ]
    frame = helper.make_tensor_value_info("frame", TensorProto.UINT8, (1, _HEIGHT, _WIDTH, 3))
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 3, _HEIGHT, _WIDTH))
    texts = metadata if contract is None else {METADATA_KEY: contract}
    return _model(helper.make_graph(nodes, "channels", [frame], [logits]), texts)


def detector_bytes(shape=(1, 3, 32, 32), output=(1, 21, 6), dtype=TensorProto.FLOAT, metadata=None, behind=b""):
    """Return a detector that always gives the same; ``behind`` are further fields of the file."""
    constant = numpy_helper.from_array(np.zeros(output, np.float32), "c")
    image = helper.make_tensor_value_info("image", dtype, shape)
    boxes = helper.make_tensor_value_info("boxes", TensorProto.FLOAT, output)
    node = helper.make_node("Identity", ["c"], ["boxes"])
    return _model(helper.make_graph([node], "detector", [image], [boxes], [constant]), metadata or {}) + behind


def _model(graph, metadata):
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata)
    return model.SerializeToString()


TINY = {
    "model_type": "segformer",
    "hidden_sizes": [4, 4, 4, 4],
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 2, 2, 4],
    "sr_ratios": [2, 2, 2, 1],
    "mlp_ratios": [1, 1, 1, 1.0],
    "patch_sizes": [7, 3, 3, 3],
    "strides": [4, 2, 2, 2],
    "decoder_hidden_size": 4,
    "num_channels": 3,
    "hidden_act": "gelu",
    "id2label": {"0": "sky", "1": "road", "2": "car"},
}


@functools.cache
def tiny_state():
    """Return the weights of the network of :data:`TINY`, as Transformers names them."""
    import torch

    from sfpp.export.checkpoints.conversion import canonical_slots
    from sfpp.export.checkpoints.styles import STYLES, Spelling
    from sfpp.export.models.segformer import EncoderConfig, HeadConfig, SegFormerConfig

    shared = {"heads": (1, 2, 2, 4), "reductions": (2, 2, 2, 1), "expansions": (1, 1, 1, 1)}
    encoder = EncoderConfig((4, 4, 4, 4), (1, 1, 1, 1), **shared)
    spelling = Spelling(STYLES["transformers"], "segformer.", "decode_head.")
    state = {}
    for slot in canonical_slots(SegFormerConfig(encoder, HeadConfig("official", 4, 3))):
        parts = spelling.parts(slot.module)
        for part in parts:
            rows = slot.shape[0] // len(parts) * part.of
            state[part.key(slot.param, slot.i, slot.j)] = torch.full((rows, *slot.shape[1:]), 0.5)
    return state
