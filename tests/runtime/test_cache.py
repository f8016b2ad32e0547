import os
import stat
from pathlib import Path

import pytest

from sfpp.runtime import cache as compiled
from sfpp.runtime.cache import cache_folder, compiled_models_folder, is_own


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


STRANGER = 65534
needs_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
has_modes = pytest.mark.skipif(os.name != "posix", reason="no permissions as POSIX has them")


@has_modes
def test_folders_of_ours_are_closed_to_others(model, cache):
    folder = folder_of(model)
    modes = {stat.S_IMODE(each.stat().st_mode) for each in (cache, cache / "lib", folder)}
    assert modes == {0o700}


@has_modes
@pytest.mark.parametrize("mode", [0o770, 0o777, 0o702])
@pytest.mark.parametrize("where", ["root", "kind", "folder"])
def test_a_folder_that_others_may_write_to_is_not_used(model, cache, caplog, where, mode):
    folder = folder_of(model)
    opened = {"root": cache, "kind": cache / "lib", "folder": folder}[where]
    opened.chmod(mode)
    assert [folder_of(model), folder_of(model)] == [None, None]
    (line,) = caplog.messages  # said once
    assert line.startswith(f"warning: nothing is kept in {opened} or read from it: others may write to it; remove it")
    opened.chmod(0o755)
    assert folder_of(model) == folder


@has_modes
def test_what_others_may_only_add_to_is_used(model, cache):
    """As /tmp is: what a stranger adds there is a stranger's, which is seen."""
    cache.mkdir(mode=0o700)
    cache.chmod(0o1777)
    assert folder_of(model).parent == cache / "lib"


@needs_root
@pytest.mark.parametrize("where", ["root", "kind", "folder", "file", "link"])
def test_what_a_stranger_owns_is_not_used(model, cache, caplog, where):
    folder = folder_of(model)
    (folder / "blob").touch()
    (folder / "link").symlink_to("blob")
    owned = {"root": cache, "kind": cache / "lib", "folder": folder}.get(where, folder / where.replace("file", "blob"))
    os.chown(owned, STRANGER, STRANGER, follow_symlinks=False)
    assert folder_of(model) is None
    assert caplog.messages[0].startswith(f"warning: nothing is kept in {owned} or read from it: it belongs to another")
    os.chown(owned, 0, 0, follow_symlinks=False)
    assert folder_of(model) == folder


@needs_root
def test_a_file_of_a_stranger_is_told(cache):
    path = cache_folder("ranges") / "known.npz"
    path.touch()
    assert is_own(path)
    os.chown(path, STRANGER, -1)
    assert not is_own(path)
