import os
from pathlib import Path

import pytest

from sfpp.runtime import cache as compiled
from sfpp.runtime.cache import compiled_models_folder


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SFPP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def folder_of(path, **options):
    return compiled_models_folder(path, library="lib", options=options)


def test_a_folder_for_each_content_and_each_set_of_options(model, cache, tmp_path):
    folder = folder_of(model, a=1, b=2)
    assert folder.is_dir()
    assert folder.parent == cache / "lib"
    assert folder_of(model, b=2, a=1) == folder
    moved = model.rename(tmp_path / "moved.onnx")
    assert folder_of(moved, a=1, b=2) == folder
    others = {folder_of(moved, a=1, b=3), folder_of(moved), compiled_models_folder(moved, library="x", options={})}
    moved.write_bytes(b"Weights")
    others.add(folder_of(moved, a=1, b=2))
    assert len(others | {folder}) == 5


def test_those_used_last_stay(model, cache, monkeypatch):
    monkeypatch.setattr(compiled, "_KEPT", 3)
    folders = [folder_of(model, number=number) for number in range(3)]
    for age, folder in enumerate(folders):
        (folder / "blob").touch()
        os.utime(folder, (1000 + age, 1000 + age))
    assert folder_of(model, number=0) == folders[0]  # used again, so that it is the youngest now
    newest = folder_of(model, number=3)
    assert set((cache / "lib").iterdir()) == {folders[0], folders[2], newest}
    assert (folders[0] / "blob").exists()


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"SFPP_CACHE": "/own", "XDG_CACHE_HOME": "/xdg"}, "/own"),
        ("linux", {"SFPP_CACHE": "", "XDG_CACHE_HOME": "/xdg"}, "/xdg/sfpp"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/someone/.cache/sfpp"),
        ("linux", {"LOCALAPPDATA": "/local"}, "/home/someone/.cache/sfpp"),
        ("win32", {"LOCALAPPDATA": "/local", "XDG_CACHE_HOME": "/xdg"}, "/local/sfpp/cache"),
    ],
)
def test_the_users_cache_folder(monkeypatch, platform, variables, expected):
    for name in ("SFPP_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/someone", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(compiled.sys, "platform", platform)
    assert compiled.user_cache() == Path(expected)


def test_no_folder_where_none_can_be_written(model, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SFPP_CACHE", str(tmp_path / "file"))
    assert folder_of(model) is None
    monkeypatch.setenv("SFPP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(compiled.os, "access", lambda path, mode: False)
    assert folder_of(model) is None
    monkeypatch.delenv("SFPP_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert folder_of(model) is None
