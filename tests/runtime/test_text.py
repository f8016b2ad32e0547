"""What is shown of text, and tables of it."""

import pytest

from sfpp.runtime.errors import SfppError
from sfpp.runtime.text import aligned, clean_text, without_secrets


def test_what_is_no_text_is_replaced():
    assert clean_text("a\x00b\x1bc\u202ed\udcffe\tf\u00e9\u4e2d") == "a\ufffdb\ufffdc\ufffdd\ufffde\tf\u00e9\u4e2d"


def test_numbers_of_a_table_end_together():
    rows = [["file", "drop", "MB"], ["a", "-0.25", "4.3"], ["longer", "", "15.0"]]
    assert aligned(rows) == ["file     drop    MB", "a       -0.25   4.3", "longer         15.0"]
    assert aligned([["a", "b", "1"], ["aa", "bb", ""]], text_columns=2) == ["a   b   1", "aa  bb"]


def test_a_return_writes_over_nothing():
    assert clean_text("a\rb\r\n") == "a\ufffdb\r\n"


SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"https://u:{SECRET}@host/m.onnx is no file", "https://host/m.onnx is no file"),
        (f"'https:/u:{SECRET}@host/m.onnx' is no file", "'https:/host/m.onnx' is no file"),  # as pathlib has it
        (f"https://u:a {SECRET}'x@host/m.onnx is no file", "https://host/m.onnx is no file"),
        (f"https://u:a/{SECRET}@host/m.onnx", "https://host/m.onnx"),
        (
            f"no m.onnx?x=1&token={SECRET}, nor https://h/?key={SECRET}#a",
            "no m.onnx?x=1&token=*** nor https://h/?key=***#a",
        ),
        (
            f"http://h/user=a&password={SECRET}/x and rtsp://a:{SECRET}@b/",
            "http://h/user=***&password=*** and rtsp://b/",
        ),
        (
            f'rtspsrc location=rtsp://h/x user-id={SECRET} user-pw="a {SECRET}" ! x',
            "rtspsrc location=rtsp://h/x user-id=*** user-pw=*** ! x",
        ),
    ],
)
def test_no_message_holds_a_secret(text, shown):
    assert without_secrets(text) == shown
    assert str(SfppError(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://10.0.0.5:554/street cannot be opened; write USER:PASSWORD@ before the host",
        "rtsp://host/street: 401; write USER:PASSWORD@ before the host",
        "expected something like camera://0?width=1280&fps=30, or a@b.png",
        '{"source": "rtsp://camera:8554", "label": "me@home"}',
        "cannot open rtsp://camera:8554, ask me@home",
        "rtsp://[fe80::1%eth0]:8554/street is gone, ask me@home",
    ],
)
def test_what_is_no_secret_stays(text):
    assert without_secrets(text) == text
