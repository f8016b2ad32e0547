import json
import sys

import pytest

from benchmarks import memory

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="peaks are read from the process that ended")


@pytest.mark.slow
def test_what_an_export_takes_is_measured_and_kept(tmp_path, capsys):
    output = tmp_path / "memory.json"
    options = ["--images", str(tmp_path), "--models", "b0", "--variants", "2x2", "--targets", "portable"]
    options += ["--res", "64x64", "--output", str(output)]
    memory.main(options)
    (row,) = json.loads(output.read_text())["rows"]
    assert (row["model"], row["variant"], row["target"], row["work"]) == ("b0", "2x2", "portable", "export")
    assert 1e8 < row["peak_bytes"] < 8e9
    assert "| B0 | `2x2` | " in capsys.readouterr().out
    memory.main(options)
    assert json.loads(output.read_text())["rows"] == [row]


def test_a_command_that_fails_is_no_figure(tmp_path):
    output = tmp_path / "memory.json"
    options = ["--images", str(tmp_path), "--models", "b0", "--variants", "none", "--output", str(output)]
    with pytest.raises(memory.SfppError, match=r"export of Case.* failed: .*unknown variant"):
        memory.main(options)
    assert not output.exists()
