"""Which of ONNX's operators the parser of each version knows."""

from __future__ import annotations

from sfpp.export.check.versions import Version


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

# ONNX Runtime's own operators of which the parser of TensorRT-RTX 1.7 says that it knows them.
MICROSOFT = "com.microsoft"
MICROSOFTS_IN_RTX = _words(
    "GroupQueryAttention MatMulNBits MultiHeadAttention QMoE SimplifiedLayerNormalization "
    "SkipSimplifiedLayerNormalization"
)

# What to write in the place of operators that people meet.
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
