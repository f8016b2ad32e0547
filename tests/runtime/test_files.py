import contextlib
import errno
import hashlib
import os
import socket
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from sfpp.runtime import files
from sfpp.runtime.errors import SfppError, UsageError
from sfpp.runtime.files import (
    check_destinations,
    check_utf8,
    identity,
    open_number,
    python_code,
    sha256_of,
    whole_file,
    write_text,
)

posix = pytest.mark.skipif(os.name != "posix", reason="links, devices and permission bits are POSIX")


@pytest.fixture
def nowhere(tmp_path):
    """A private copy of /dev/null: what goes wrong with the real one goes wrong for the whole machine."""
    return device(tmp_path / "null", stat.S_IFCHR, 1, 3)


def device(path, kind, major, minor):
    try:
        os.mknod(path, 0o666 | kind, os.makedev(major, minor))
        with path.open("rb") if kind == stat.S_IFCHR else open(os.devnull, "rb"):  # noqa: PTH123
            return path
    except (AttributeError, OSError) as error:
        pytest.skip(f"devices cannot be made or opened here: {error}")


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
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EPERM, "replaced"),
    ],
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


def test_a_missing_folder_is_made_unless_nothing_comes_into_it(tmp_path):
    path = tmp_path / "new" / "er" / "a.json"
    with pytest.raises(ZeroDivisionError), whole_file(path):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    write_text(path, "all")
    assert path.read_text() == "all\n"
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "new" / "est" / "b.json"):
        raise ZeroDivisionError
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["er"]


def test_in_what_is_no_folder_nothing_is_made(tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(SfppError, match=r"cannot write .*: .*a\.txt is no folder; give another place"):
        write_text(tmp_path / "a.txt" / "b" / "c.json", "x")


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


@posix
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
    check_destinations(None, tmp_path / "new" / "page.html")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(SfppError, match=r"file is no folder; give another place"):
        check_destinations(None, tmp_path / "file" / "page.html")
    with pytest.raises(SfppError, match="it is a folder; give the name of a file"):
        check_destinations(tmp_path)


def test_no_destination_is_another_or_what_is_read(tmp_path):
    model, report = tmp_path / "model.onnx", tmp_path / "report.json"
    check_destinations(report, None, tmp_path / "page.html", also_read=[model, None])
    for paths, read in (((report, tmp_path / "." / "report.json"), ()), ((model,), (None, str(model)))):
        with pytest.raises(UsageError, match="is named twice, and one would overwrite the other"):
            check_destinations(*paths, also_read=read)


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755, 0o444])
def test_a_replaced_file_keeps_its_permissions(tmp_path, mode):
    target = tmp_path / "a.json"
    target.write_text("old")
    target.chmod(mode)
    write_text(target, "new")
    assert (stat.S_IMODE(target.stat().st_mode), target.read_text()) == (mode, "new\n")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may give files away")
def test_a_replaced_file_keeps_its_owner(tmp_path):
    target = tmp_path / "a.json"
    target.write_text("old")
    os.chown(target, 12345, 54321)
    write_text(target, "new")
    assert (target.stat().st_uid, target.stat().st_gid) == (12345, 54321)


@posix
def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    for folder in ("real", "links"):
        (tmp_path / folder).mkdir()
    target, link, longer = tmp_path / "real" / "a.json", tmp_path / "links" / "a.json", tmp_path / "longer.json"
    target.write_text("old")
    link.symlink_to("../real/a.json")
    longer.symlink_to(link)
    for name in (link, longer):
        with whole_file(name) as temporary:
            assert temporary.parent == target.parent
            temporary.write_text(name.name)
        assert target.read_text() == name.name
        assert link.is_symlink()
        assert longer.is_symlink()
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["a.json"]


@posix
def test_a_link_to_nothing_yet_gets_its_file(tmp_path):
    (tmp_path / "link.json").symlink_to(tmp_path / "new.json")
    write_text(tmp_path / "link.json", "new")
    assert (tmp_path / "new.json").read_text() == "new\n"
    assert (tmp_path / "link.json").is_symlink()
    (tmp_path / "far.json").symlink_to(tmp_path / "new folder" / "new.json")
    write_text(tmp_path / "far.json", "far")
    assert (tmp_path / "new folder" / "new.json").read_text() == "far\n"
    (tmp_path / "round.json").symlink_to(tmp_path / "round.json")
    with pytest.raises(SfppError, match=r"cannot write .*round\.json: it is a link that leads to itself"):
        write_text(tmp_path / "round.json", "new")
    with pytest.raises(SfppError, match="is a link that leads to itself"):
        check_destinations(tmp_path / "round.json")
    assert (tmp_path / "round.json").is_symlink()


@posix
def test_a_link_to_a_folder_is_a_folder(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    with pytest.raises(SfppError, match="it is a folder"):
        write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()


@posix
def test_a_hard_link_loses_nothing(tmp_path):
    (tmp_path / "a.json").write_text("old")
    (tmp_path / "b.json").hardlink_to(tmp_path / "a.json")
    write_text(tmp_path / "b.json", "new")
    assert (tmp_path / "a.json").read_text() == "old"


def test_a_device_stays_one(nowhere, tmp_path):
    (tmp_path / "link.json").symlink_to(nowhere)
    check_destinations(nowhere, tmp_path / "link.json")  # both: it forgets
    for name in (nowhere, tmp_path / "link.json"):
        write_text(name, "new")
        assert stat.S_ISCHR(nowhere.stat().st_mode)
    assert (tmp_path / "link.json").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.json", "null"]


def test_a_full_device_is_an_error(tmp_path):
    full = device(tmp_path / "full", stat.S_IFCHR, 1, 7)
    with pytest.raises(SfppError, match=r"cannot write .*full: No space left on device; give another place"):
        write_text(full, "new")
    assert stat.S_ISCHR(full.stat().st_mode)


def test_disks_and_sockets_are_refused(tmp_path):
    disk = device(tmp_path / "disk", stat.S_IFBLK, 7, 250)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name in ("disk", "socket"):
            for refused in (check_destinations, lambda path: write_text(path, "new")):
                with pytest.raises(SfppError, match=f"it is a {name}; give the name of a file"):
                    refused(tmp_path / name)
        assert stat.S_ISSOCK((tmp_path / "socket").stat().st_mode)
    assert stat.S_ISBLK(disk.stat().st_mode)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_gets_all_or_nothing(tmp_path, monkeypatch):
    pipe, read = tmp_path / "pipe.json", []
    os.mkfifo(pipe)
    text = "new" * 200_000  # more than a pipe holds
    for write in (lambda: write_text(pipe, text), lambda: write_and_fail(pipe, ValueError())):
        reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
        reader.start()
        try:
            write()
        except ValueError:
            read.append("failed")
        reader.join()
    assert read == [text + "\n", "failed", ""] or read == [text + "\n", "", "failed"]
    monkeypatch.setattr(files, "_PIPE_PATIENCE_S", 0.1)
    with pytest.raises(SfppError, match=r"cannot write .*pipe\.json: nobody reads this pipe; give another place"):
        write_text(pipe, "new")
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="this system does not name open files")
def test_open_files_are_written_on_where_they_stand(tmp_path):
    """As a shell opens them: ``> file``, ``3> file``, ``>(command)``."""
    code = (
        "import os; from sfpp.runtime.files import write_text; print('before');"
        "[write_text(name, name) for name in sys.argv[1:]]; print('after')"
    )
    with (tmp_path / "told").open("w") as told:
        names = ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"]
        subprocess.run(**python_code(code, *names), check=True, stdout=told)
        assert (tmp_path / "told").read_text().splitlines() == ["before", *names, "after"]
    reading, writing = os.pipe()
    write_text(f"/dev/fd/{writing}", "through a pipe")
    assert os.read(reading, 100) == b"through a pipe\n"
    os.close(reading)
    with pytest.raises(SfppError, match="nobody reads it any more"):
        write_text(f"/dev/fd/{writing}", "no more")
    os.close(writing)
    with pytest.raises(SfppError, match="cannot write /dev/fd/"):
        write_text(f"/dev/fd/{writing}", "closed")


def test_only_own_open_files_have_numbers(tmp_path):
    assert open_number(Path("/dev/stdout")) == 1
    assert open_number(Path("/dev/fd/17")) == 17
    (tmp_path / "link").symlink_to("/dev/stdout")
    assert open_number(tmp_path / "link") == 1
    for name in ("/dev/null", "/proc/1/fd/1", "1", "/dev/fd", tmp_path, "/dev/fd/x"):
        assert open_number(Path(name)) is None


@posix
def test_names_of_one_file_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "model.onnx"
    model.write_text("model")
    (tmp_path / "soft").symlink_to(model)
    (tmp_path / "hard").hardlink_to(model)
    (tmp_path / "folder").symlink_to(tmp_path)
    for name in ("soft", "hard", "./model.onnx", "folder/model.onnx", str(model), f"../{tmp_path.name}/model.onnx"):
        assert identity(name) == identity(model)
        with pytest.raises(UsageError, match="is named twice, and one would overwrite the other"):
            check_destinations(name, also_read=[model])
    assert identity("model2.onnx") != identity(model)


def test_new_names_that_some_file_systems_take_for_one(tmp_path):
    for one, other in (("a.json", "A.JSON"), ("stra\u00dfe", "STRASSE"), ("e\u0301", "\u00e9")):
        with pytest.raises(UsageError, match="is named twice"):
            check_destinations(tmp_path / one, tmp_path / other)
    check_destinations(tmp_path / "a.json", tmp_path / "b.json")


def test_a_file_is_on_the_disk_before_it_has_its_name_and_then_its_name_is(tmp_path, monkeypatch):
    done = []
    path = tmp_path / "a.json"
    really = os.fsync

    def fsync(number):
        done.append((os.fstat(number).st_ino, path.exists()))
        really(number)

    monkeypatch.setattr(os, "fsync", fsync)
    with whole_file(path) as temporary:
        temporary.write_text("whole")
    assert done == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]
    done.clear()
    with whole_file(path, settled=False) as temporary:
        temporary.write_text("later")
    assert done == []


@pytest.mark.parametrize(("number", "passes"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.ENOSPC, False)])
def test_where_the_disk_cannot_be_waited_for(tmp_path, monkeypatch, number, passes):
    """Some file systems have no such thing; others notice only then that they are full."""

    def fsync(_):
        raise OSError(number, "no")

    monkeypatch.setattr(os, "fsync", fsync)
    path = tmp_path / "a.json"
    expected = contextlib.nullcontext() if passes else pytest.raises(SfppError, match="the disk is full")
    with expected, whole_file(path) as temporary:
        temporary.write_text("whole")
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"] * passes


@pytest.mark.parametrize("name", ["https://u:s3cr3t@host/a.onnx", "https://u:s3cr3t@host/new/a.onnx"])
def test_an_address_is_no_file_to_write(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for write in (lambda: check_destinations(name), lambda: write_text(name, "x")):
        with pytest.raises(SfppError, match=r"https:/host.*: it is an address; give a file") as error:
            write()
        assert "s3cr3t" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "ab:").mkdir()
    write_text("ab:/a.onnx", "x")  # a folder that is there may be called what it likes


def test_a_name_that_is_no_utf8_is_refused_where_a_library_needs_it():
    check_utf8("straße.onnx", reader="X")
    with pytest.raises(UsageError, match="is no UTF-8, which ONNX Runtime needs; rename it"):
        check_utf8(Path(os.fsdecode(b"b\xffd.onnx")), reader="ONNX Runtime")
