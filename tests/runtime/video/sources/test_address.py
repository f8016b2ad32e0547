from fractions import Fraction

import pytest

from sfpp.runtime import UsageError
from sfpp.runtime.video import open_source
from sfpp.runtime.video.sources.address import Options, address_from, is_uri

EXAMPLE = "camera://0?width=640"
KNOWN = ("width", "fps", "timeout", "wait", "format")


def options(query, *, strict=True):
    return Options(address_from(f"camera://0?{query}"), known=KNOWN, example=EXAMPLE, strict=strict)


def test_a_uri_taken_apart():
    address = address_from("RTSP://user:secret@host:554/a%20b?x=1&&timeout=3")
    assert (address.scheme, address.place, address.query) == (
        "rtsp",
        "user:secret@host:554/a%20b",
        ("x=1", "timeout=3"),
    )
    assert "secret" not in repr(address)
    assert address_from("gst://a ! b location=http://h/?x=1").place == "a ! b location=http://h/?x=1"


@pytest.mark.parametrize("text", ["a.mp4", "C:/a.mp4", "demo", "0", "rec:1.avi", "images/*.png", "./http:/a"])
def test_paths_are_no_uris(text):
    assert not is_uri(text)


def test_options_that_are_right():
    given = options("width=640&fps=30000/1001&timeout=2.5&wait=1&format=b")
    assert given.integer("width") == 640
    assert given.rate("fps") == Fraction(30000, 1001)
    assert given.seconds("timeout", 5.0) == 2.5
    assert given.flag("wait", default=False)
    assert given.choice("format", ("a", "b"), "a") == "b"
    assert options("fps=29.97").rate("fps") == Fraction(2997, 100)
    assert options("fps=23.976023976").rate("fps") == Fraction(24000, 1001)
    absent = options("")
    assert absent.integer("width") is None
    assert absent.rate("fps", Fraction(25)) == 25
    assert absent.seconds("timeout", 5.0) == 5.0
    assert not absent.flag("wait", default=False)


def test_an_unknown_option_of_ours_names_the_nearest():
    with pytest.raises(UsageError, match=r"no option 'widht', did you mean 'width'\?; camera:// takes width, fps"):
        options("widht=640")
    with pytest.raises(UsageError, match="width is given twice"):
        options("width=640&width=320")
    assert options("widht=640&width=5", strict=False).integer("width") == 5


@pytest.mark.parametrize(
    ("query", "read", "words"),
    [
        (
            "width=0",
            lambda o: o.integer("width"),
            "width is '0'; expected a whole number from 1 to 16384, as in camera://0",
        ),
        ("width=-1", lambda o: o.integer("width"), "width is '-1'"),
        ("width=\u0661", lambda o: o.integer("width"), "expected a whole number"),
        ("width", lambda o: o.integer("width"), "width is ''"),
        ("fps=0", lambda o: o.rate("fps"), "expected frames a second above 0"),
        ("fps=1/0", lambda o: o.rate("fps"), "fps is '1/0'"),
        ("fps=fast", lambda o: o.rate("fps"), "such as 30 or 30000/1001"),
        ("timeout=0", lambda o: o.seconds("timeout", 1), "seconds above 0"),
        ("timeout=nan", lambda o: o.seconds("timeout", 1), "seconds above 0"),
        ("timeout=1e9", lambda o: o.seconds("timeout", 1), "seconds above 0"),
        ("wait=yes", lambda o: o.flag("wait", default=False), "expected 0 or 1"),
        ("format=rbg24", lambda o: o.choice("format", ("rgb24", "nv12"), "nv12"), "did you mean 'rgb24'"),
    ],
)
def test_options_that_cannot_be_meant(query, read, words):
    with pytest.raises(UsageError, match=words):
        read(options(query))


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("rstp://u:s3cr3t@host/x", r"rstp://host/x: nothing opens rstp://, did you mean 'rtsp'\?"),
        ("file:///a.mp4", "or a path"),
        ("test://x", "has options only"),
        ("test://?frame=3", "did you mean 'frames'"),
        ("camera://front", "names no camera; expected its number"),
        ("camera://0?fourcc=JPG", "the four letters of a format"),
        ("csi://x", "names no sensor"),
        ("csi://0?flip=8", "a whole number from 0 to 7"),
        ("gst://", "holds no pipeline"),
        ("raw://-?height=4&format=bgr24", "width= is missing; expected something like raw://-"),
        ("raw://-?width=4&height=4", "format= is missing"),
        ("raw://-?width=4&height=4&format=bgr", "did you mean 'bgr24'"),
        ("raw://-?width=5&height=4&format=yuyv", "expected even numbers"),
        ("raw://-?width=4&height=5&format=nv12", "expected even numbers"),
        ("raw://?width=4&height=4&format=bgr24", "names nothing to read"),
        ("rtsp://?timeout=3", "names no host"),
        ("rtsp://host/x?transport=tpc", "did you mean 'tcp'"),
        ("http://host/x?timeout=soon", "seconds above 0"),
        ("http://host/x?reconnect=-1", "a whole number from 0"),
    ],
)
def test_uris_that_cannot_be_meant(uri, words):
    with pytest.raises(UsageError, match=words) as caught:
        open_source(uri)
    assert "s3cr3t" not in str(caught.value)
