import os
import threading

import pytest

from sfpp.runtime import UsageError
from sfpp.runtime.viewer.token import new_token, token_given
from tests.runtime.viewer.looking import ask

TOKEN = "a-token-of-the-test-0123456789"


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return path


def test_a_token_cannot_be_guessed():
    assert len({new_token() for _ in range(10)}) == 10
    assert token_given(new_token(), None)


def test_a_file_goes_before_the_environment(token_file, monkeypatch, caplog):
    assert token_given(None, None) is None
    monkeypatch.setenv("SFPP_TOKEN", f" {TOKEN[::-1]} ")
    assert token_given(None, None) == TOKEN[::-1]
    assert token_given(None, token_file) == token_given(None, str(token_file)) == TOKEN
    assert token_given("x" * 16, None) == "x" * 16
    assert caplog.text == ""


def test_a_file_may_be_one_of_windows(token_file):
    token_file.write_bytes(f"\ufeff{TOKEN}\r\n".encode())
    assert token_given(None, token_file) == TOKEN


def test_a_file_and_a_token_are_one_too_many(token_file):
    with pytest.raises(UsageError, match="leave one of them out"):
        token_given(TOKEN, token_file)


@pytest.mark.skipif(os.name != "posix", reason="Windows tells by other means who may read a file")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o444])
def test_a_file_that_others_may_read_is_told_and_used(token_file, caplog, mode):
    token_file.chmod(mode)
    assert token_given(None, token_file) == TOKEN
    assert f"other users of this machine may read the token in {token_file}; chmod 600 keeps it" in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes by name")
def test_a_pipe_is_read_to_its_end(tmp_path, caplog):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    pipe.chmod(0o644)
    writing = threading.Thread(target=pipe.write_text, args=(TOKEN,))
    writing.start()
    assert token_given(None, pipe) == TOKEN
    writing.join()
    assert caplog.text == ""


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"the token's file .*nothing cannot be read \(No such file or directory\)"):
        token_given(None, tmp_path / "nothing")
    with pytest.raises(UsageError, match=r"cannot be read \(Is a directory\)"):
        token_given(None, tmp_path)


@pytest.mark.parametrize("text", [b"", b"short", b"two words are no token", b"x" * 100_000, b"\xff" * 20])
def test_what_is_no_token_is_refused_and_not_repeated(tmp_path, monkeypatch, text):
    path = tmp_path / "token"
    path.write_bytes(text)
    with pytest.raises(UsageError, match=f"the token in {path} has .* expected 16 to 256") as refused:
        token_given(None, path)
    assert "words" not in str(refused.value)
    monkeypatch.setenv("SFPP_TOKEN", "short")
    with pytest.raises(UsageError, match="the token in SFPP_TOKEN has 5 characters"):
        token_given(None, None)


def test_a_token_stays_when_the_viewer_comes_again(open_viewer, token_file, monkeypatch):
    for _ in range(2):
        viewer = open_viewer(token_file=token_file)
        assert ask(viewer.url, "/metrics").status == 401
        assert ask(viewer.url, "/metrics", Authorization=f"Bearer {TOKEN}").status == 200
    monkeypatch.setenv("SFPP_TOKEN", TOKEN)
    assert open_viewer().url.endswith(f"?token={TOKEN}")
