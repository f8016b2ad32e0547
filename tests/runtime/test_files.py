import errno
import hashlib
import os
import stat
from pathlib import Path

import pytest

from sfpp.runtime.errors import SfppError, UsageError
from sfpp.runtime.files import check_destinations, sha256_of, whole_file, write_text


def test_file_appears_when_the_block_succeeds(tmp_path):
    target = tmp_path / "model.onnx"
    with whole_file(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
        assert temporary.suffix == ".onnx"
        assert temporary.parent == target.parent
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_old_file_is_replaced_in_one_step(tmp_path):
    target = tmp_path / "model.onnx"
    target.write_text("old")
    with whole_file(str(target)) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


def write_and_fail(target, error):
    with whole_file(target) as temporary:
        temporary.write_text("half")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_when_the_block_fails(tmp_path, error):
    target = tmp_path / "model.onnx"
    target.write_text("old")
    with pytest.raises(error):
        write_and_fail(target, error)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "quota"), (errno.EROFS, "read-only")],
)
def test_disk_errors_are_told_in_words(tmp_path, number, reason):
    with pytest.raises(SfppError, match=rf"cannot write .*a\.onnx: .*{reason}.*nothing was left"):
        write_and_fail(tmp_path / "a.onnx", OSError(number, os.strerror(number)))
    assert not list(tmp_path.iterdir())


def test_other_os_errors_pass_through(tmp_path):
    with pytest.raises(ConnectionResetError):
        write_and_fail(tmp_path / "a.onnx", ConnectionResetError(errno.ECONNRESET, "reset"))


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="this system has no folder that takes no files")
def test_a_folder_that_takes_no_files():
    with (
        pytest.raises(SfppError, match=r"cannot write /proc/a\.onnx: .*; give another place"),
        whole_file("/proc/a.onnx"),
    ):
        pass


def test_missing_folder(tmp_path):
    with (
        pytest.raises(SfppError, match=r"the folder .*nowhere does not exist; create it first"),
        whole_file(tmp_path / "nowhere" / "a.onnx"),
    ):
        pass


def test_target_that_is_a_folder(tmp_path):
    with pytest.raises(SfppError, match="it is a folder; give the name of a file"), whole_file(tmp_path):
        pass


def test_longest_name_that_the_file_system_takes(tmp_path):
    target = tmp_path / ("n" * 250 + ".onnx")
    with whole_file(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"
    with pytest.raises(SfppError, match="the name is too long"), whole_file(tmp_path / ("n" * 300)) as temporary:
        temporary.write_text("new")
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX")
def test_file_gets_the_permissions_of_an_ordinary_new_file(tmp_path):
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    with whole_file(tmp_path / "whole") as temporary:
        temporary.write_text("new")
    assert stat.S_IMODE((tmp_path / "whole").stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def test_the_hash_is_that_of_the_contents_one_after_another(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 1_500_000)
    (tmp_path / "b").write_bytes(b"y")
    expected = hashlib.sha256(b"first" + b"x" * 1_500_000 + b"y").hexdigest()
    assert sha256_of([tmp_path / "a", tmp_path / "b"], prefix=b"first") == expected
    assert sha256_of([tmp_path / "b", tmp_path / "a"], prefix=b"first") != expected


def test_text_is_written_whole_and_in_utf8(tmp_path):
    target = tmp_path / "report.json"
    write_text(target, "Straße")
    assert target.read_bytes() == "Straße\n".encode()
    with pytest.raises(UnicodeEncodeError):
        write_text(target, "\ud800")
    assert target.read_bytes() == "Straße\n".encode()
    assert list(tmp_path.iterdir()) == [target]


def test_destinations_are_refused_before_anything_is_made(tmp_path):
    check_destinations(None, tmp_path / "page.html", "here.json")
    with pytest.raises(SfppError, match=r"the folder .*nowhere does not exist; create it first"):
        check_destinations(None, tmp_path / "nowhere" / "page.html")
    with pytest.raises(SfppError, match="it is a folder; give the name of a file"):
        check_destinations(tmp_path)


def test_no_destination_is_another_or_what_is_read(tmp_path):
    model, report = tmp_path / "model.onnx", tmp_path / "report.json"
    check_destinations(report, None, tmp_path / "page.html", also_read=[model, None])
    for paths, read in (((report, tmp_path / "." / "report.json"), ()), ((model,), (None, str(model)))):
        with pytest.raises(UsageError, match="is named twice, and one would overwrite the other"):
            check_destinations(*paths, also_read=read)
