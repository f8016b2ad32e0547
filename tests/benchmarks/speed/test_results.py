import json

import pytest

from benchmarks.speed.results import read_results, without_group, write_results
from sfpp.runtime.bench.row import Speedup
from sfpp.runtime.errors import ContractError
from tests.benchmarks.speed.rows import speed_row


def test_rows_are_the_same_after_a_trip_through_a_file(tmp_path):
    rows = [
        speed_row(time_ms=12.5, to_transformers=Speedup(2.0, 1.5, 2.5), samples_ms=(1.0, 2.0), peak_memory_bytes=7),
        speed_row("transformers", missing="16 GiB of scores"),
    ]
    write_results(tmp_path / "speed.json", rows, settings={"runs": 3}, peaks={"onnxruntime": {}})
    assert read_results(tmp_path / "speed.json") == rows
    content = json.loads((tmp_path / "speed.json").read_text())
    assert {"processor", "onnxruntime"} <= set(content["machine"])
    assert content["settings"] == {"runs": 3}


def test_a_row_that_cannot_be_read_names_the_file(tmp_path):
    (tmp_path / "speed.json").write_text(json.dumps({"rows": [{"network": "b0"}]}))
    with pytest.raises(ContractError, match=r"a row of speed\.json lacks the field 'size'"):
        read_results(tmp_path / "speed.json")


def test_a_group_that_is_measured_again_goes():
    rows = [speed_row(), speed_row(size="64x64"), speed_row(network="b2"), speed_row("fast")]
    assert without_group(rows, network="b0", size="512x512") == [rows[1], rows[2]]


def test_pixels_of_a_frame():
    assert speed_row(size="3840x2160").pixels == 3840 * 2160


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        (None, "not reached"),
        ("16 GiB of scores", "16 GiB of scores"),
        ("PyTorch failed: not enough memory", "PyTorch failed"),
        ("it was killed; try a machine with more", "it was killed"),
    ],
)
def test_a_reason_in_few_words(missing, expected):
    assert speed_row(missing=missing).missing_briefly == expected
