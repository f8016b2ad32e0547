"""What is within tolerance, and which precision a file is held to."""

import dataclasses
import math

import pytest

from sfpp.export.parity.report import TOLERANCES, OutputReport, PointReport, Tolerance, precision_of
from sfpp.export.parity.tally import Limits

TOLERANCE = Tolerance(own=0.1, output=0.2, labels=0.9, free_labels=0.5, gap=0.3)
GOOD = OutputReport("pinned", same=0.9, worst_same=0.1, relative_error=0.2)
FREE = dataclasses.replace(GOOD, mode="free")
POINT = PointReport("stages.0/blocks.0/ffn", own=0.1, total=9.0, largest=9.0, place=None, frame="a", gap=0.3)


@pytest.mark.parametrize(
    ("file", "backend", "expected"),
    [
        ("fp32", "fp32", "fp32"),
        ("fp32", "bf16", "bf16"),
        ("fp16", "bf16", "bf16"),
        ("fp16", "fp32", "fp16"),
        ("int8", "bf16", "int8"),
        ("fp4", "fp32", "int8"),
    ],
)
def test_the_coarser_of_file_and_backend_decides(file, backend, expected):
    assert precision_of(file, backend) == expected


def test_tolerances_widen_with_the_precision_and_no_factor_of_two_passes():
    ordered = list(TOLERANCES.values())
    for name in ("own", "output", "gap"):
        values = [getattr(each, name) for each in ordered]
        assert values == sorted(values)
        assert max(values) < 0.5
    assert all(each.free_labels < each.labels for each in ordered)


def judged(output=GOOD, point=POINT, *, pins=True):
    return Limits(TOLERANCE, pins, "labels").failures([output], [point])


@pytest.mark.parametrize(
    ("output", "pins", "problems"),
    [
        (GOOD, True, []),
        (dataclasses.replace(GOOD, same=0.899), True, ["labels agree on 89.90% (pinned), expected at least 90.0%"]),
        (dataclasses.replace(GOOD, same=math.nan), True, ["labels agree on nan% (pinned)"]),
        (dataclasses.replace(GOOD, relative_error=0.21), True, ["the output's relative error is 2.1e-01 (pinned)"]),
        (dataclasses.replace(GOOD, relative_error=math.nan), True, ["the output's relative error is nan (pinned)"]),
        (dataclasses.replace(GOOD, relative_error=None), True, []),
        # Free beside pinned is judged loosely, and strictly where there is nothing to pin.
        (dataclasses.replace(FREE, same=0.5, relative_error=9.0), True, []),
        (dataclasses.replace(FREE, same=0.49), True, ["labels agree on 49.00% (free), expected at least 50.0%"]),
        (dataclasses.replace(FREE, same=0.5), False, ["labels agree on 50.00% (free), expected at least 90.0%"]),
        (dataclasses.replace(GOOD, problem="it gave nothing"), True, ["it gave nothing"]),
    ],
)
def test_outputs(output, pins, problems):
    found = judged(output, pins=pins)
    assert len(found) == len(problems), found
    assert all(have.startswith(want) for have, want in zip(found, problems, strict=True)), found


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, None),
        ({"own": 0.11}, "1 of 1 parts differ by more than 1e-01: stages.0/blocks.0/ffn"),
        ({"own": math.inf}, "1 of 1 parts differ by more than 1e-01: stages.0/blocks.0/ffn"),
        ({"own": math.nan}, "from stages.0/blocks.0/ffn on the graph's values are NaN or infinite"),
        ({"gap": 0.31}, "stages.0/blocks.0/ffn merges tokens with partners that are 3.1e-01 less similar"),
        ({"gap": math.inf}, "stages.0/blocks.0/ffn merges tokens with partners that are inf less similar"),
        ({"gap": math.nan}, "stages.0/blocks.0/ffn merges tokens with partners that are nan less similar"),
        ({"gap": None}, None),
    ],
)
def test_parts(changes, problem):
    found = judged(point=dataclasses.replace(POINT, **changes))
    assert len(found) == (problem is not None), found
    assert problem is None or found[0].startswith(problem)


def test_what_both_modes_meet_is_said_once():
    outputs = [dataclasses.replace(GOOD, mode=mode, problem="NaN") for mode in ("free", "pinned")]
    assert Limits(TOLERANCE, True, "labels").failures(outputs, []) == ["NaN"]
