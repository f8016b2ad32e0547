"""Bounds of graphs that can be counted by hand, and of our own."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sfpp.export.bounds import Work, bound_on, bounds_of, bounds_text
from sfpp.export.engine import main
from sfpp.runtime.errors import UsageError
from sfpp.runtime.tensorrt.facts import Gpu

HALF, FLOAT, INT8 = TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.INT8
SMALL = Gpu("small", "small", "8.7", 4e-6, 2e-6, 1e-6)  # 4e6 INT8, 2e6 FP16 operations and 1000 bytes a second


def saved(folder, nodes, kind, *stored, between=(), frames=4):
    """A graph of 8 values to 2 for each frame."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, (frames, 8))],
        [helper.make_tensor_value_info("y", kind, (frames, 2))],
        [numpy_helper.from_array(values, name) for name, values in stored],
        value_info=between,
    )
    path = folder / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
    return path


def product(folder, kind, dtype, *, frames=4):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"], name="encoder/stages.1/blocks.0/product"),
        helper.make_node("Relu", ["p"], ["r"], name="encoder/stages.1/blocks.0/relu"),
        helper.make_node("Softmax", ["r"], ["y"], name="head/softmax"),
    ]
    return saved(folder, nodes, kind, ("w", np.ones((8, 2), dtype)), frames=frames)


@pytest.mark.parametrize(("kind", "dtype", "precision"), [(FLOAT, np.float32, "fp32"), (HALF, np.float16, "fp16")])
def test_work_is_counted_by_stage_and_precision(tmp_path, kind, dtype, precision):
    size = np.dtype(dtype).itemsize
    found = bounds_of(product(tmp_path, kind, dtype))
    stage, head = found.works
    assert stage == Work("stage 2", {precision: 4 * 8 * 2}, 16 * size, (32 + 8) * size)  # the Relu is fused
    assert head == Work("head", {}, 0, (8 + 8) * size)
    assert found.end_bytes == (32 + 8) * size


def test_a_product_of_quantized_values_is_int8_and_reads_bytes(tmp_path):
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["v"]),
        helper.make_node("Transpose", ["v"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["d", "t"], ["y"]),
    ]
    stored = (("w", np.ones((2, 8), np.int8)), ("s", np.float32(0.1)), ("z", np.int8(0)))
    (work,) = bounds_of(saved(tmp_path, nodes, FLOAT, *stored)).works
    assert work.multiply_adds == {"int8": 64}
    assert work.weight_bytes == 16 + 4 + 1


def test_a_product_is_int8_only_if_both_factors_are(tmp_path):
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["v"]),
        helper.make_node("MatMul", ["x", "v"], ["y"]),
    ]
    for order in (["x", "v"], ["v", "x"]):
        nodes[1].input[:] = order
        shape = (8, 2) if order[0] == "x" else (4, 4)
        stored = (("w", np.ones(shape, np.int8)), ("s", np.float32(0.1)), ("z", np.int8(0)))
        path = tmp_path / "m.onnx"
        size = [4, 2] if order[0] == "x" else [4, 8]
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", FLOAT, (4, 8))],
            [helper.make_tensor_value_info("y", FLOAT, size)],
            [numpy_helper.from_array(values, name) for name, values in stored],
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
        (work,) = bounds_of(path).works
        assert set(work.multiply_adds) == {"fp32"}


def test_a_bound_is_what_peaks_allow():
    works = [
        Work("stage 1", {"fp16": 500_000, "int8": 1_000_000, "fp32": 250_000}, 100, 700),
        Work("head", {}, 100, 100),
    ]
    bound = bound_on(SMALL, works, 50)
    assert bound.compute == pytest.approx(1 / (0.5 + 0.5 + 0.5))  # of multiply-adds, each two operations
    assert bound.fused == pytest.approx(1000 / 250)
    assert bound.usual == pytest.approx(1000 / 1000)
    assert bound_on(SMALL, works, 50, frames=2).compute == pytest.approx(2 * bound.compute)


def test_frames_are_counted_by_the_first_input_that_is_no_weight(tmp_path):
    path = product(tmp_path, HALF, np.float16, frames=1)
    model = onnx.load(path)
    model.graph.input.insert(0, helper.make_tensor_value_info("w", HALF, (8, 2)))  # as files of before 2019 have it
    onnx.save(model, path)
    assert bounds_of(path).frames == 1
    scalar = [helper.make_tensor_value_info(name, FLOAT, ()) for name in "xy"]
    constant = helper.make_node("Constant", [], ["y"], value_float=1.0)
    for node, inputs in ((constant, []), (helper.make_node("Relu", ["x"], ["y"]), scalar[:1])):
        graph = helper.make_graph([node], "g", inputs, scalar[1:])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
        assert bounds_of(path).frames == 1


def row_json(time_ms, machine="{}"):
    row = f'{{"model": "m", "description": "d", "network": {{"p50_ms": {time_ms}}}, "whole": null}}'
    return f'{{"rows": [{row}], "machine": {machine}}}'


def bench_json(path, model, *, board="NVIDIA Jetson Orin NX Engineering Reference Developer Kit", whole=True):
    row = {
        "model": model,
        "description": "TensorRT 10.3.0 on Orin, CUDA 12.6",
        "network": {"p50_ms": 5.0},
        "whole": {"p50_ms": 20.0} if whole else None,
    }
    path.write_text(
        json.dumps({"machine": {"board": board}, "rows": [{**row, "network": None, "model": "other"}, row]})
    )
    return path


def test_a_measurement_stands_against_the_bound_of_its_board(tmp_path):
    model = product(tmp_path, HALF, np.float16, frames=1)
    found = bounds_of(model, measured=[bench_json(tmp_path / "nx.json", "/elsewhere/m.engine")])
    (measured,) = found.measured
    assert (measured.network, measured.whole) == (200, 50)
    assert measured.gpu == "Orin NX 16 GB (MAXN_SUPER)"
    text = bounds_text(found)
    assert (
        "measured: 200 frames a second of the network alone, 50.0 with all around it, TensorRT 10.3.0 on Orin" in text
    )
    assert f"of what {measured.gpu} cannot pass" in text
    assert "measure first" not in text
    (unknown,) = bounds_of(model, measured=[bench_json(tmp_path / "x.json", "m.onnx", board="", whole=False)]).measured
    assert (unknown.gpu, unknown.whole) == ("", None)


def test_a_run_counts_all_frames_of_a_batch(tmp_path):
    (measured,) = bounds_of(
        product(tmp_path, HALF, np.float16), measured=[bench_json(tmp_path / "nx.json", "m")]
    ).measured
    assert (measured.network, measured.whole) == (4 * 200, None)


def test_a_model_in_several_backends_has_several_figures(tmp_path):
    file = bench_json(tmp_path / "both.json", "m.engine")
    content = json.loads(file.read_text())
    slower = {**content["rows"][-1], "model": "m.onnx", "network": {"p50_ms": 50.0}}
    file.write_text(json.dumps({**content, "rows": [*content["rows"], slower]}))
    found = bounds_of(product(tmp_path, HALF, np.float16, frames=1), measured=[file]).measured
    assert [each.network for each in found] == [200, 20]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "no JSON of sfpp-bench"),
        (row_json("5.0", machine="null"), "no JSON of sfpp-bench"),
        *((row_json(time), "no JSON of sfpp-bench") for time in ("-5", "0", "NaN", "Infinity", '"5"')),
        ('{"rows": [{"network": 3}], "machine": {}}', "no JSON of sfpp-bench"),
        ("[", "not valid JSON"),
    ],
)
def test_what_is_no_measurement_is_refused(tmp_path, content, message):
    file = tmp_path / "b.json"
    file.write_text(content)
    with pytest.raises(UsageError, match=message):
        bounds_of(product(tmp_path, HALF, np.float16), measured=[file])


def test_figures_of_another_model_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"nx\.json has figures of other, and the model is m; measure an engine"):
        bounds_of(product(tmp_path, HALF, np.float16), measured=[bench_json(tmp_path / "nx.json", "other.engine")])


def test_the_command_prints_every_gpu_and_what_to_measure(tmp_path, capsys):
    model = product(tmp_path, HALF, np.float16)
    assert main([str(model), "--bounds"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("m.onnx: not measured;")
    assert all(name in out for name in ("Orin Nano Super", "AGX Orin", "Thor", "RTX 4060", "RTX 4090", "RTX 5090"))
    assert "1. the network alone:   sfpp-bench" in out
    assert main([str(model), "--measured", "x.json"]) == 2
    assert "give --bounds too" in capsys.readouterr().err


def test_our_own_file_has_all_its_parts(demo_export):
    report = demo_export(variant="original", res="64x64")
    found = bounds_of(report.path)
    assert [each.stage for each in found.works] == ["stage 1", "stage 2", "stage 3", "stage 4", "head", "rest"]
    assert sum(sum(each.multiply_adds.values()) for each in found.works) == report.contract.multiply_adds
    assert sum(each.activation_bytes for each in found.works) < report.contract.activation_bytes
