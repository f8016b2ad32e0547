"""Temporary files and folders: gone after their use, and what killed processes left goes with the next one's."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sfpp.runtime import scratch
from sfpp.runtime.scratch import discard, discard_all, make_file_beside, make_folder, scratch_folder


@pytest.fixture(autouse=True)
def _own_place(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(scratch, "_swept", set())


def named(like, *, machine=None, process=None):
    """Return the name of another's file like one of ours."""
    ours, own_process, chance = like.name.split("sfpp-")[1].split(".")[0].split("-")
    other = f"sfpp-{machine or ours}-{process or own_process}-{'0' * len(chance)}"
    return like.with_name(like.name.replace(f"sfpp-{ours}-{own_process}-{chance}", other))


def ended_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_folder_is_there_for_the_block_and_for_this_user_alone(tmp_path):
    with scratch_folder() as folder:
        assert folder.parent == tmp_path / "temporary"
        (folder / "deep").mkdir()
        (folder / "deep" / "file").touch()
        assert folder.stat().st_mode & 0o777 == 0o700 or os.name != "posix"
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("name", ["out.mp4", "x" * 250 + ".png", "a.tar.gz", "a\nb.png"])
def test_a_file_lies_beside_its_target_and_keeps_the_suffix(tmp_path, name):
    path = make_file_beside(tmp_path / name)
    assert (path.parent, path.suffix, path.read_bytes()) == (tmp_path, Path(name).suffix, b"")
    assert path.name.startswith(".")
    discard(path)
    assert not path.exists()


def test_all_that_was_made_can_be_removed_at_once(tmp_path):
    kept = make_folder()
    moved = make_file_beside(tmp_path / "out.txt").replace(tmp_path / "out.txt")
    discard_all()
    assert not kept.exists()
    assert moved.exists()


@pytest.mark.skipif(os.name != "posix", reason="which processes run is asked by signal 0")
def test_what_killed_processes_left_is_removed(tmp_path):
    folder, file = make_folder(), make_file_beside(tmp_path / "out.txt")
    dead = ended_process()
    left = [named(folder, process=dead), named(file, process=dead), named(file)]
    running = [named(folder, process=os.getppid()), named(file, process=os.getppid())]
    elsewhere = [named(folder, machine="0" * 8, process=dead), named(file, machine="0" * 8)]
    old = [named(folder, machine="1" * 8), named(file, machine="1" * 8)]
    others = [tmp_path / ".out.txt", tmp_path / "temporary" / "sfpp-notes", tmp_path / "temporary" / "sfpp-1-2-3"]
    for path in (*left, *running, *elsewhere, *old, *others):
        path.mkdir() if path.name.startswith("sfpp-") else path.touch()
    for path in old:
        os.utime(path, (time.time() - 90_000,) * 2)
    scratch._swept.clear()
    make_folder()
    make_file_beside(tmp_path / "other.txt")
    assert [path.exists() for path in (*left, *old)] == [False] * 5
    assert all(path.exists() for path in (folder, file, *running, *elsewhere, *others))
    discard_all()


@pytest.mark.skipif(not Path("/proc/sys/kernel/random/boot_id").exists(), reason="Linux tells machines apart so")
def test_machines_of_one_name_are_told_apart(monkeypatch):
    scratch._this_machine.cache_clear()
    here = scratch._this_machine()
    scratch._this_machine.cache_clear()
    assert scratch._this_machine() == here
    scratch._this_machine.cache_clear()
    with monkeypatch.context() as patch:
        read_text = Path.read_text
        patch.setattr(Path, "read_text", lambda path: f"another {read_text(path)}")
        assert scratch._this_machine() != here
    scratch._this_machine.cache_clear()


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_a_link_in_the_place_of_a_folder_leads_to_no_harm(tmp_path):
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "kept").touch()
    folder = make_folder()
    link = named(folder, process=ended_process())
    link.symlink_to(treasure)
    discard(folder)
    scratch._swept.clear()
    discard(make_folder())
    assert not link.is_symlink()
    assert (treasure / "kept").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_other_users_files_stay(tmp_path):
    folder = make_folder()
    theirs = named(folder, process=ended_process())
    theirs.mkdir()
    shutil.chown(theirs, 65534, 65534)
    discard(folder)
    scratch._swept.clear()
    discard(make_folder())
    assert theirs.exists()


def test_a_folder_is_looked_through_once(tmp_path, monkeypatch):
    """A file for each frame must not cost a look at all of them."""
    make_file_beside(tmp_path / "0.png")
    monkeypatch.setattr(scratch.os, "scandir", lambda path: pytest.fail("looked through again"))
    make_file_beside(tmp_path / "1.png")
    discard_all()
