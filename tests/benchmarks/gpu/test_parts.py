import importlib.util
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu import __main__ as command, parts as module
from benchmarks.gpu.parts import GRAPHS, LIBRARIES, Parts
from sfpp.runtime.errors import ModelFileError


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """Graphs that do not compress, in five pieces."""
    monkeypatch.setattr(module, "PIECE_BYTES", 1000)
    parts = Parts(tmp_path / "here")
    for name in ("a.onnx", "deep/b.onnx"):
        path = parts.content(GRAPHS) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(np.random.default_rng(len(name)).bytes(2000))
    parts.pack(GRAPHS, weights={"b0": "1"})
    return parts


def moved(packed, *, without=()):
    """Copy the pieces alone, as to another machine."""
    other = Parts(packed.folder.parent / "there")
    other.folder.mkdir(exist_ok=True)
    shutil.copytree(packed.folder / "pieces", other.folder / "pieces", dirs_exist_ok=True)
    for name in without:
        (other.folder / "pieces" / name).unlink()
    return other


def files_in(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.onnx")}


def test_what_is_unpacked_is_what_was_packed(packed):
    other = moved(packed)
    assert len(list((other.folder / "pieces").glob("graphs-*"))) == 5
    assert other.unpack(GRAPHS)
    assert files_in(other.content(GRAPHS)) == files_in(packed.content(GRAPHS))
    assert len(files_in(other.content(GRAPHS))) == 2
    assert other.read_list()["weights"] == {"b0": "1"}
    assert not other.unpack(LIBRARIES)


def test_pieces_may_come_one_after_the_other_and_go_once_they_are_unpacked(packed):
    other = moved(packed, without=["graphs-01", "graphs-04"])
    with pytest.raises(ModelFileError, match="as well, then try again: graphs-01, graphs-04"):
        other.unpack(GRAPHS)
    damaged = moved(packed).folder / "pieces" / "graphs-02"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert other.missing(GRAPHS) == ["graphs-02"]
    other = moved(packed)
    other.unpack(GRAPHS)
    (other.folder / "pieces" / "graphs-00").unlink()
    assert other.unpack(GRAPHS)
    assert other.missing(GRAPHS) == []


def test_what_is_packed_already_is_told_by_its_facts(packed):
    assert packed.is_packed(GRAPHS, weights={"b0": "1"})
    assert not packed.is_packed(GRAPHS, weights={"b0": "2"})
    assert not packed.is_packed(LIBRARIES)
    assert [path.name for path in packed.pieces] == [*(f"graphs-0{index}" for index in range(5)), "list.json"]
    packed.pieces[0].unlink()
    assert not packed.is_packed(GRAPHS)
    assert not Parts(packed.folder.parent / "nowhere").is_packed(GRAPHS)


def test_new_graphs_take_the_place_of_old_ones(packed):
    moved(packed).unpack(GRAPHS)
    (packed.content(GRAPHS) / "a.onnx").write_bytes(b"new")
    packed.pack(GRAPHS)
    other = moved(packed)
    other.unpack(GRAPHS)
    assert files_in(other.content(GRAPHS))["a.onnx"] == b"new"


def test_without_a_list_it_says_what_to_run(tmp_path):
    with pytest.raises(ModelFileError, match=r"run `python -m benchmarks.gpu prepare`"):
        Parts(tmp_path).read_list()


def test_where_the_package_is_not_installed_it_is_found_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "path", [*sys.path])
    command.make_importable(tmp_path / "links")
    command.make_importable(tmp_path / "links")
    assert sys.path[0] == str(tmp_path / "links")
    code = "import sfpp.runtime.errors, importlib.metadata as m; print(m.version('sfpp'), sfpp.runtime.errors.__file__)"
    # Installed packages are there, but no .pth file is read, by which an editable install would be found.
    site = str(Path(np.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "links"), site])}
    command_line = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command_line, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [version("sfpp"), str(tmp_path / "links" / "sfpp" / "runtime" / "errors.py")]
