"""Which products are found, what is known of each, and which stay out."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from sfpp.calibration.int8.quantizable import Quantizable, quantizable
from sfpp.tooling.graph import block_of, read_model
from tests.calibration.int8.int8_graphs import attention_input, classifiers, model_of, weight


def found(nodes, *, constants, inputs=None, outputs=None, **options):
    """What is quantizable in these nodes, which are followed by a Relu so that none of them is a classifier."""
    last = nodes[-1][2][0]
    model = model_of(
        [*nodes, ("Relu", [last], ["output"], {})],
        inputs=inputs or {"x": [1, 4, 6]},
        outputs=outputs or {"output": None},
        constants=constants,
        **options,
    )
    return quantizable(model)


@pytest.mark.parametrize(
    ("operator", "read", "attributes", "shape", "axis"),
    [
        ("Conv", ["x", "w"], {}, (5, 4, 1), 0),
        ("Conv", ["x", "w"], {"group": 4}, (4, 1, 3), 0),
        ("MatMul", ["x", "w"], {}, (6, 5), 1),
        ("MatMul", ["w", "x"], {}, (5, 4), 0),
    ],
)
def test_products_with_one_constant_weight(operator, read, attributes, shape, axis):
    (product,) = found([(operator, read, ["y"], attributes)], constants={"w": weight(*shape)})
    assert product == Quantizable("node/y", operator, "x", "w", axis)


@pytest.mark.parametrize(
    ("channels", "window", "stride", "expected"),
    [(32, 8, 8, 0), (48, 4, 4, 0), (64, 8, 8, 1), (32, 2, 2, 1), (32, 4, 2, 1), (3, 7, 4, 1)],
)
def test_narrow_reductions_stay_out(channels, window, stride, expected):
    nodes = [("Conv", ["x", "w"], ["y"], {"strides": [stride, stride]})]
    constants = {"w": weight(5, channels, window, window)}
    assert len(found(nodes, constants=constants, inputs={"x": [1, channels, 16, 16]})) == expected


@pytest.mark.parametrize(("transposed", "shape", "axis"), [(0, (6, 5), 1), (1, (5, 6), 0)])
def test_gemm(transposed, shape, axis):
    nodes = [("Gemm", ["x", "w"], ["y"], {"transB": transposed})]
    (product,) = found(nodes, constants={"w": weight(*shape)}, inputs={"x": [3, 6]})
    assert (product.operator, product.axis) == ("Gemm", axis)


@pytest.mark.parametrize(("transposed", "shape", "axis"), [(0, (5, 3), 0), (1, (3, 5), 1)])
def test_gemm_with_the_weight_first(transposed, shape, axis):
    nodes = [("Gemm", ["w", "x"], ["y"], {"transA": transposed})]
    (product,) = found(nodes, constants={"w": weight(*shape)}, inputs={"x": [3, 6]})
    assert (product.operator, product.axis, product.activation) == ("Gemm", axis, "x")


def test_what_is_no_product_of_an_activation_with_a_float32_matrix():
    both_computed = [("Transpose", ["x"], ["t"], {"perm": [0, 2, 1]}), ("MatMul", ["x", "t"], ["y"], {})]
    assert not found(both_computed, constants={})
    assert not found([("MatMul", ["x", "w"], ["y"], {})], constants={"w": weight(1, 6, 5)})
    assert not found([("MatMul", ["x", "w"], ["y"], {})], constants={"w": weight(6)})
    both_constant = [("MatMul", ["v", "w"], ["u"], {}), ("Add", ["x", "u"], ["y"], {})]
    assert not found(both_constant, constants={"v": weight(4, 3), "w": weight(3, 6)})
    computed_kernel = [("Relu", ["k"], ["r"], {}), ("Conv", ["c", "r"], ["u"], {}), ("Add", ["x", "u"], ["y"], {})]
    assert not found(computed_kernel, constants={"c": weight(1, 2, 6), "k": weight(4, 2, 1)}, inputs={"x": [1, 4, 6]})


def test_a_weight_in_another_type():
    half = helper.make_tensor_value_info("x", TensorProto.FLOAT16, [4, 6])
    model = model_of(
        [("MatMul", ["x", "w"], ["y"], {}), ("Relu", ["y"], ["z"], {})],
        inputs={"x": [4, 6]},
        outputs={"z": [4, 5]},
        constants={"w": weight(6, 5).astype(np.float16)},
        infer=False,
    )
    model.graph.input[0].CopyFrom(half)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    assert not quantizable(model)


def test_weights_behind_other_nodes():
    nodes = [("Identity", ["w"], ["same"], {}), ("MatMul", ["x", "same"], ["y"], {})]
    (product,) = found(nodes, constants={"w": weight(6, 5)})
    assert product.weight == "w"
    nodes = [("Transpose", ["w"], ["turned"], {}), ("MatMul", ["x", "turned"], ["y"], {})]
    assert not found(nodes, constants={"w": weight(5, 6)})
    constant = helper.make_tensor("value", TensorProto.FLOAT, [6, 5], weight(6, 5).ravel())
    nodes = [("Constant", [], ["c"], {"value": constant}), ("MatMul", ["x", "c"], ["y"], {})]
    assert not found(nodes, constants={})


def test_operators_of_other_domains():
    nodes = [("MatMul", ["x", "w"], ["y"], {"domain": "com.microsoft"})]
    model = model_of(
        [*nodes, ("Relu", ["y"], ["z"], {})],
        inputs={"x": [4, 6]},
        outputs={"z": [4, 5]},
        constants={"w": weight(6, 5)},
        domains=("com.microsoft",),
        infer=False,
    )
    assert not quantizable(model)


def test_the_same_values_in_two_layouts_have_one_range():
    query, reduction = quantizable(attention_input())
    assert (query.activation, reduction.activation) == ("normed", "normed")
    assert (query.node, reduction.node) == ("node/query", "node/reduced")


def test_a_node_without_a_name_has_that_of_its_output():
    model = attention_input()
    for node in model.graph.node:
        node.name = ""
    assert [each.node for each in quantizable(model)] == ["query", "reduced"]


# The classifier


def head(tail, outputs, *, first=(), more=None):
    """A hidden product, a classifier, and what follows it."""
    nodes = [
        ("Conv", ["x", "w"], ["hidden"], {}),
        ("Relu", ["hidden"], ["active"], {}),
        ("Conv", ["active", "v", "b"], ["logits"], {}),
        *first,
        *tail,
    ]
    constants = {"w": weight(5, 3, 1, 1), "v": weight(4, 5, 1, 1), "b": weight(4), **(more or {})}
    model = model_of(nodes, inputs={"x": [1, 3, 6, 8]}, outputs=outputs, constants=constants, infer=False)
    return [each.node for each in quantizable(model)], classifiers(model)


def test_the_last_product_is_the_classifier():
    assert head([], {"logits": [1, 4, 6, 8]}) == (["node/hidden"], ("node/logits",))


def test_what_may_follow_the_classifier():
    tail = [
        ("Resize", ["logits", "", "scales"], ["large"], {"mode": "linear"}),
        ("Softmax", ["large"], ["sure"], {"axis": 1}),
        ("Transpose", ["sure"], ["last"], {"perm": [0, 2, 3, 1]}),
        ("Cast", ["last"], ["answer"], {"to": TensorProto.FLOAT}),
    ]
    scales = np.array([1, 1, 2, 2], np.float32)
    products, last = head(tail, {"answer": [1, 12, 16, 4]}, more={"scales": scales})
    assert (products, last) == (["node/hidden"], ("node/logits",))


def test_a_head_in_parts_has_several_classifiers():
    first = [("Conv", ["active", "u"], ["other_part"], {})]
    tail = [("Add", ["logits", "other_part"], ["sum"], {})]
    products, last = head(tail, {"sum": [1, 4, 6, 8]}, first=first, more={"u": weight(4, 5, 1, 1)})
    assert (products, last) == (["node/hidden"], ("node/logits", "node/other_part"))


def test_what_stands_before_an_activation_is_no_classifier():
    products, last = head([("Relu", ["logits"], ["rectified"], {})], {"rectified": [1, 4, 6, 8]})
    assert products == ["node/hidden", "node/logits"]
    assert last == ()


# Exported networks


@pytest.fixture(scope="module")
def exported(demo_export):
    return lambda **options: read_model(demo_export(**{"res": "160x128", **options}).path)


def test_every_learned_product_but_the_classifier(exported):
    model = exported(variant="hq")
    products = quantizable(model)
    names = [each.node for each in products]
    learned = [name for name in (node.name for node in model.graph.node) if name.endswith(("/Conv", "/MatMul"))]
    narrow = {f"encoder/stages.0/blocks.{block}/attention/reduction/Conv" for block in (0, 1)}
    assert set(learned) - set(names) == {"head/parts.0.4/Conv"} | narrow
    assert set(classifiers(model)) == {"head/parts.0.4/Conv"}
    assert names == [name for name in learned if name in names]
    # 4 patch embeddings, 8 blocks of 3 in the FFN and 3 in attention, 4 of 6 reductions, 8 in the head
    assert len(names) == 4 + 8 * 3 + 8 * 3 + 4 + 8
    blocks = {block_of(each.node) for each in products}
    assert {"encoder/stages.0", "encoder/stages.2/blocks.1", "head"} <= blocks
    shared = "encoder/stages.1/norm/LayerNormalization_output_0"
    assert [each.node for each in products if each.activation == shared] == [
        "encoder/stages.2/patch_embed/projection/Conv",
        "head/projections.1/projections.1.0/Conv",
    ]


def test_merging_and_target_make_no_difference(exported):
    one, other = exported(variant="hq"), exported(variant="fast", matching="local", target="onnxruntime")
    assert {each.node for each in quantizable(one)} == {each.node for each in quantizable(other)}


def test_labels_come_from_the_same_classifier(exported):
    assert classifiers(exported(output="labels")) == ("head/parts.0.4/Conv",)
