"""Rules on operators that a parser does not know, and on attributes that it refuses or misreads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from onnx import TensorProto

from sfpp.export.check.findings import ALL, CHANGELOG, FROM_10_3, OPERATORS, TRIED, Effect, Match, Rule, Version
from sfpp.export.check.graph import CheckedGraph, Node

_TRANSFORMATIONS = {"half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"}
# ONNX Runtime's own operators of which the parser of TensorRT-RTX 1.7 says that it knows them.
MICROSOFT = "com.microsoft"
# What to write in place of operators that people meet.
REPLACEMENTS = {
    "Attention": "export with an opset below 23, which writes it as MatMul, Softmax, MatMul",
    "Compress": "keep all values and a mask, or select a fixed number with TopK and Gather",
    "DynamicQuantizeLinear": "quantize with fixed scales, in pairs of QuantizeLinear and DequantizeLinear",
    "Gelu": "export with an opset below 20, which writes it with Erf",
    "QLinearConv": "quantize in pairs of QuantizeLinear and DequantizeLinear around a float Conv",
    "QLinearMatMul": "quantize in pairs of QuantizeLinear and DequantizeLinear around a float MatMul",
    "MatMulInteger": "quantize in pairs of QuantizeLinear and DequantizeLinear around a float MatMul",
    "ConvInteger": "quantize in pairs of QuantizeLinear and DequantizeLinear around a float Conv",
    "RMSNormalization": "export with an opset below 23, which writes it out; keep that part float32",
    "Unique": "sort with TopK and keep a fixed number of values",
}


def _without(operator: str) -> tuple[Version, ...]:
    """Return the versions whose parser does not know one of ONNX's operators."""
    return tuple(version for version in ALL if operator not in OPERATORS_OF[version])


def _knows(version: Version, node: Node) -> bool:
    """Tell whether a parser takes a node of another domain."""
    if version == "rtx" and node.domain == MICROSOFT and node.operator in MICROSOFTS_IN_RTX:
        return True
    return node.operator in OPERATORS_OF[version]


def _unknown(graph: CheckedGraph) -> Iterator[Match]:
    for node in graph.nodes:
        if not node.domain and (versions := _without(node.operator)):
            yield Match.at(node, versions=versions, remedy=REPLACEMENTS.get(node.operator, ""))


def _foreign(graph: CheckedGraph) -> Iterator[Match]:
    for node in graph.nodes:
        if node.domain and (versions := tuple(each for each in ALL if not _knows(each, node))):
            yield Match.at(node, node.domain, versions=versions)


def _namesakes(graph: CheckedGraph) -> Iterator[Match]:
    for node in graph.nodes:
        if node.domain and (versions := tuple(each for each in ALL if node.operator in OPERATORS_OF[each])):
            yield Match.at(node, node.domain, versions=versions)


OPERATOR_RULES = (
    Rule(
        "operator-unknown",
        "refused",
        ALL,
        _unknown,
        "the parser does not know the operator {operator}",
        "write the node in operators that the version knows, or run the model in ONNX Runtime",
        f"{OPERATORS} (8.5, 10.6, 10.12, 11.0); {TRIED}",
    ),
    Rule(
        "operator-foreign",
        "refused",
        ALL,
        _foreign,
        "{operator} is no operator of ONNX but of {detail}, and builds only where a plugin of that name is loaded",
        "export with --target tensorrt, or load the plugin when building",
        f"{OPERATORS}; {TRIED}",
    ),
    Rule(
        "operator-namesake",
        "doubtful",
        ALL,
        _namesakes,
        "{operator} is an operator of {detail}, and TensorRT goes by the name alone: it reads ONNX's own operator",
        "make sure that both compute the same, or export the model in ONNX's own operators",
        TRIED,
    ),
)


def _having(*operators: str, where: Callable[[Node], object]) -> Callable[[CheckedGraph], Iterator[Match]]:
    """Return what finds the nodes of some operators for which something holds; a text it gives is the detail."""

    def find(graph: CheckedGraph) -> Iterator[Match]:
        for node in graph.of(*operators):
            if found := where(node):
                yield Match.at(node, found if isinstance(found, str) else "")

    return find


def _transformation(node: Node) -> str:
    mode = node.text("coordinate_transformation_mode", "half_pixel")
    return "" if mode in _TRANSFORMATIONS else mode


def _further_outputs(node: Node) -> str:
    return ", ".join(filter(None, node.outputs[1:]))


def _dilated(node: Node) -> bool:
    return any(each != 1 for each in node.integers("dilations"))


def _training(graph: CheckedGraph) -> Iterator[Match]:
    for node in graph.of("BatchNormalization", "Dropout"):
        mode = graph.values(node.input(2)) if node.operator == "Dropout" else None
        if node.integer("training_mode") or (mode is not None and mode.any()):
            yield Match.at(node)


def _volumetric_samples(graph: CheckedGraph) -> Iterator[Match]:
    return (Match.at(node) for node in graph.of("GridSample") if len(graph.shape(node.input(0)) or ()) > 4)


def _float_remainders(graph: CheckedGraph) -> Iterator[Match]:
    floats = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
    for node in graph.of("Mod"):
        if not node.integer("fmod") and graph.type(node.input(0)) in floats:
            yield Match.at(node)


def _group_norms_by_channel(graph: CheckedGraph) -> Iterator[Match]:
    return map(Match.at, graph.of("GroupNormalization")) if graph.opset >= 21 else iter(())


def _einsum_beyond_letters(node: Node) -> str:
    equation = node.text("equation")
    terms = equation.replace(" ", "").split("->")[0].split(",")
    diagonal = any(len(set(term)) < len(term) for term in terms)
    return equation if "..." in equation or diagonal else ""


def _attention_extras(node: Node) -> str:
    """Return what an Attention has beside queries, keys, values and a mask."""
    extras = [*filter(None, (*node.inputs[4:], *node.outputs[1:]))]
    extras += ["softcap"] * bool(node.floating("softcap"))
    return ", ".join(extras)


def _attention_in_float32(graph: CheckedGraph) -> Iterator[Match]:
    for node in graph.of("Attention"):
        if graph.type(node.input(0)) == TensorProto.FLOAT and len(graph.shape(node.input(0)) or ()) == 4:
            yield Match.at(node)


def _resize_rule(name: str, effect: Effect, versions: tuple[Version, ...], where: Callable[[Node], object]) -> Rule:
    return Rule(
        f"resize-{name}",
        effect,
        versions,
        _having("Resize", where=where),
        {
            "antialias": "TensorRT has no antialiasing in Resize, and 8.6 leaves it out silently",
            "coordinates": "TensorRT has no Resize with the coordinates {detail}",
            "aspect": "TensorRT has no Resize that keeps the aspect ratio",
        }[name],
        "export with plain linear or nearest resizing on half_pixel coordinates to a fixed size",
        f"{OPERATORS} (8.5 to 11.0); NVIDIA/TensorRT#3560; {TRIED}",
    )


def _smooths(node: Node) -> bool:
    return bool(node.integer("antialias"))


def _keeps_aspect(node: Node) -> bool:
    return node.text("keep_aspect_ratio_policy", "stretch") != "stretch"


ATTRIBUTE_RULES = (
    _resize_rule("antialias", "wrong", ("8.6",), _smooths),
    _resize_rule("antialias", "refused", FROM_10_3, _smooths),
    _resize_rule("coordinates", "refused", ALL, _transformation),
    _resize_rule("aspect", "refused", FROM_10_3, _keeps_aspect),
    Rule(
        "pad-wrap",
        "refused",
        ("8.6",),
        _having("Pad", where=lambda node: node.text("mode", "constant") == "wrap"),
        "TensorRT pads by wrapping around from 10.0 on",
        "concatenate slices of both ends",
        f"{CHANGELOG} (10.0)",
    ),
    Rule(
        "further-outputs",
        "refused",
        FROM_10_3,
        _having("LayerNormalization", "MaxPool", "BatchNormalization", where=_further_outputs),
        "TensorRT gives the first output of {operator} only, and the graph names {detail}",
        "remove the further outputs; training needs them, inference does not",
        f"{OPERATORS} (10.6 to 11.0); {TRIED}",
    ),
    Rule(
        "maxpool-indices",
        "refused",
        ("8.6",),
        _having("MaxPool", where=_further_outputs),
        "TensorRT has no MaxPool that tells where the largest values were",
        "remove the output with the indices",
        f"{OPERATORS} (8.5)",
    ),
    Rule(
        "pool-dilations",
        "refused",
        FROM_10_3,
        _having("MaxPool", "AveragePool", "LpPool", where=_dilated),
        "TensorRT has no pooling with dilations",
        "pool slices that lie the dilation apart",
        f"{OPERATORS} (10.6 to 11.0); {TRIED}",
    ),
    Rule(
        "training",
        "refused",
        FROM_10_3,
        _training,
        "{operator} is in training mode",
        "export the model in evaluation mode: model.eval()",
        f"{OPERATORS} (10.6 to 11.0); {TRIED}",
    ),
    Rule(
        "group-norm-21",
        "refused",
        ("8.6", "10.3"),
        _group_norms_by_channel,
        "opset 21 gave GroupNormalization a scale for each channel, which TensorRT reads from 10.9 on",
        "export with an opset from 18 to 20",
        f"{CHANGELOG} (10.9); NVIDIA/TensorRT#4336",
    ),
    Rule(
        "grid-sample-3d",
        "refused",
        ("8.6", "10.3", "10.13"),
        _volumetric_samples,
        "TensorRT samples pictures (4 dimensions), and volumes from 11.2 on",
        "sample slice by slice",
        f"{OPERATORS} (10.6 to 11.0); release notes of TensorRT 11.2.1",
    ),
    Rule(
        "einsum",
        "refused",
        ("8.6", "10.3"),
        _having("Einsum", where=_einsum_beyond_letters),
        "the equation {detail} has an ellipsis or a diagonal, which TensorRT reads from 10.12 on",
        "write all letters out, or use MatMul",
        f"{OPERATORS} (8.5), {CHANGELOG} (10.12)",
    ),
    Rule(
        "mod-float",
        "refused",
        ALL,
        _float_remainders,
        "Mod of floating point numbers needs fmod = 1",
        "set fmod = 1, or cast to integers",
        f"NVIDIA/TensorRT#2968; {TRIED}",
    ),
    Rule(
        "attention-extras",
        "refused",
        ("11", "rtx"),
        _having("Attention", where=_attention_extras),
        "TensorRT's Attention takes queries, keys, values and a mask, and this one has {detail}",
        "write it as MatMul, Softmax, MatMul",
        f"{OPERATORS} (11.0); {TRIED}",
    ),
    Rule(
        "attention-float32",
        "refused",
        ("rtx",),
        _attention_in_float32,
        "TensorRT-RTX has no kernel for the operator Attention in float32",
        "write it as MatMul, Softmax, MatMul, or compute it in float16",
        TRIED,
    ),
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# From the table of onnx-tensorrt's docs/operators.md for 8.5, and what its docs/Changelog.md adds for 8.6.
_FROM_8_6 = _words(
    """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil Celu Clip Concat
    Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu
    Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool
    GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Identity If
    InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop
    LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min Mod Mul Neg NonMaxSuppression NonZero
    Not OneHot Or PRelu Pad Pow QuantizeLinear RNN RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range
    Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign Round Scan Scatter ScatterElements ScatterND Selu Shape
    Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh
    ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
    """
)


# The table for 10.6, without what the changelog dates to 10.4 and 10.5.
_FROM_10_3 = _FROM_8_6 | {"CastLike", "DeformConv", "Gelu", "Hardmax", "Mish"}


# The table for 10.12, to which 10.13 added nothing.
_FROM_10_13 = _FROM_10_3 | {"BlackmanWindow", "HammingWindow", "HannWindow", "STFT"}


# The table for 11.0; DFT came with 11.2 only.
_FROM_11 = _FROM_10_13 | {"Attention", "RMSNormalization", "RotaryEmbedding", "Swish", "TensorScatter"}


# What the parser of TensorRT-RTX 1.7 answers when asked for each operator.
_RTX = (_FROM_11 - {"DeformConv"}) | {"CausalConvWithState", "LinearAttention"}


OPERATORS_OF: dict[Version, frozenset[str]] = {
    "8.6": _FROM_8_6,
    "10.3": _FROM_10_3,
    "10.13": _FROM_10_13,
    "11": _FROM_11,
    "rtx": _RTX,
}


MICROSOFTS_IN_RTX = _words(
    "GroupQueryAttention MatMulNBits MultiHeadAttention QMoE SimplifiedLayerNormalization "
    "SkipSimplifiedLayerNormalization"
)
