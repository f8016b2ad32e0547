import os
import subprocess
import sys

import pytest

from sfpp.runtime.children import same_modules


def test_a_child_finds_what_is_found_here(tmp_path, monkeypatch):
    (tmp_path / "known_here.py").write_text("NUMBER = 7\n", encoding="utf-8")
    command = [sys.executable, "-c", "import known_here; print(known_here.NUMBER)"]
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run(command, check=True, capture_output=True)
    done = subprocess.run(command, check=True, capture_output=True, env=same_modules())
    assert int(done.stdout) == 7


def test_the_rest_of_the_environment_stays(monkeypatch):
    monkeypatch.setenv("SFPP_TEST", "here")
    environment = same_modules()
    assert environment["SFPP_TEST"] == "here"
    assert {**environment, "PYTHONPATH": ""} == {**os.environ, "PYTHONPATH": ""}
