"""What people and other programs type: addresses of sources and sinks, and the options of all commands."""

import argparse
import contextlib
import io

import pytest
from hypothesis import example, strategies as st

from sfpp.calibration.cli import build_parser as calibrate_parser
from sfpp.calibration.settings import CalibrationSettings
from sfpp.export.cli import build_parser as export_parser
from sfpp.export.engine import EngineSettings, engine_parser
from sfpp.export.parity.cli import parity_parser
from sfpp.export.parity.settings import ParitySettings
from sfpp.export.settings import ExportSettings
from sfpp.runtime.bench.cli import bench_parser
from sfpp.runtime.bench.settings import BenchSettings
from sfpp.runtime.cli.console import exit_code_of
from sfpp.runtime.cli.run import parsed, run_parser
from sfpp.runtime.errors import MediaError
from sfpp.runtime.motion.options import key_every_from
from sfpp.runtime.options import options_of
from sfpp.runtime.video.sinks.opening import check_sink, output_from
from sfpp.runtime.video.sources import link
from sfpp.runtime.video.sources.address import without_credentials
from sfpp.runtime.video.sources.opening import each_source, open_source
from sfpp.runtime.viewer.listening import address_from
from tests.fuzz.inputs import changed_texts
from tests.fuzz.judging import fuzzed

LONG = "9" * 5000
SOURCES = [
    *("test://?width=64&height=48&fps=30000/1001&frames=2&seed=1&pace=0", "camera://0?width=640&fourcc=MJPG&wait=1"),
    *("rtsp://u:p@127.0.0.1:1/x?transport=udp&timeout=1&reconnect=3&wait=1", "http://127.0.0.1:1/a.jpg?every=5"),
    *("csi://0?flip=2&fps=30", "gst://videotestsrc num-buffers=1 ! video/x-raw", "udp://127.0.0.1:1", "a/**/*.png"),
    *("raw://none?width=2&height=2&format=nv12&live=1&fps=5", "picture.png", "demo", "0", "rtmp://127.0.0.1/app/key"),
]
SINKS = [
    *("a.mp4", "b/", "c.png", "-", "d.jsonl", "raw://-?format=nv12", "raw:///nowhere/pipe", "window://"),
    *("rtsp://u:p@h:554/x", "rtmp://h/app/key", "srt://h:1?mode=caller", "udp://[::1]:1234?pkt_size=9", "rtsp:/h/x"),
]


def leads_elsewhere(text):
    """Whether opening it could read what is not here: other folders, standard input."""
    place = text.partition("://")[2] or text
    return ".." in text or "%2" in text or "//" in place or place.startswith(("/", "~", "-", "%2d"))


@fuzzed(6.0, text=changed_texts(*SOURCES).filter(lambda text: not leads_elsewhere(text)))
@example(f"test://?width={LONG}")
@example(f"rtsp://127.0.0.1:1/x?reconnect={LONG}")
@example(f"raw://none?width={LONG}&height=2&format=bgr24")
@example(f"test://?fps={LONG}/{LONG}")
@example(f"test://?fps=1e{LONG}")
@example("test://?fps=1e999999999")
@example("test://?seed=%D8%00")
@example("raw://a%00b?width=2&height=2&format=bgr24")
@example(f"raw://{'a' * 5000}?width=2&height=2&format=bgr24")
@example("camera://%00")
@example(f"csi://{LONG}")
@example("a\0b.png")
@example("a" * 5000)
@example("\ud800")
@example("\u00b2")
@example("*" * 20 + "/" + "[" * 20)
def test_source(folder, text):
    def refuse(self):
        raise MediaError("nothing is connected to here")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(link.Feed, "connect", refuse)
        assert without_credentials(text) is not None
        each_source(text)
        with open_source(text) as source:
            assert source.name


@fuzzed(6.0, text=changed_texts(*SINKS))
@example("a\0b.mp4")
@example("raw://a%00b")
@example("a" * 5000 + ".mp4")
@example("a" * 5000 + "/")
@example("a" * 5000)
@example("rtsp://[::1")
@example(f"udp://h:{LONG}")
@example("\ud800.mp4")
def test_sink(folder, text):
    output = output_from(text)
    assert output.thread_name
    check_sink(text, count=1)


@fuzzed(2.0, text=changed_texts("4", "0.25s", "auto", "250 ms"))
@example(f"{LONG}s")
def test_key_every(text):
    key_every_from(text)


@fuzzed(2.0, text=changed_texts("8080", "0.0.0.0:8080", "[::1]:80", "host:1", "[fe80::1%eth0]:1"))
def test_page_address(text):
    with contextlib.suppress(argparse.ArgumentTypeError):
        address_from(text)


VALUES = [
    *("1", "0", "0.5", "64x48", "1920x1080", "model.onnx", "a.json", "cpu", "fp16,int8", "255=1,0=ignore", "2211-222"),
    *("0.25s", "0.0.0.0:8080", "frame:1x3x64x64", "openvino:fp32", "1e400", "-1", "nan", "all", "auto", "demo", "sm86"),
]


def command_lines(parser):
    """Lists of arguments: options of the parser with values that suit or not, and words that stand alone."""
    hidden = ("-h", "--version", "--print-completion")
    options = [each for each in parser._actions if each.option_strings and each.option_strings[0] not in hidden]
    value = st.one_of(st.sampled_from(VALUES), changed_texts(*VALUES).map(lambda text: text.replace("\0", "")))

    def with_value(action):
        flag = st.sampled_from(action.option_strings)
        if action.nargs == 0:
            return flag.map(lambda text: [text])
        suiting = st.sampled_from([str(each) for each in action.choices]) if action.choices else value
        several = st.lists(st.one_of(suiting, value), min_size=1, max_size=3 if action.nargs == "+" else 1)
        return st.tuples(flag, several).map(lambda pair: [pair[0], *pair[1]])

    part = st.one_of(*map(with_value, options), value.map(lambda text: [text]))
    return st.lists(part, max_size=6).map(lambda parts: ["model.onnx", *(word for each in parts for word in each)])


@contextlib.contextmanager
def _parsing():
    """Wrong usage ends a command with 2, after words on stderr."""
    ended = None
    with contextlib.redirect_stderr(io.StringIO()) as told:
        try:
            yield
        except SystemExit as error:
            ended = error
    assert ended is None or (ended.code == 2 and told.getvalue())


@fuzzed(3.0, arguments=command_lines(run_parser()))
@example(["model.onnx", "demo", "--max-frames", LONG])
@example(["model.onnx", "demo", "--key-every", LONG])
@example(["model.onnx", "a" * 5000, "b" * 5000])
@example(["model.onnx", "demo", "--view", "\u0663"])
@example(["model.onnx", "demo", f"raw://{'a' * 5000}"])
def test_run(folder, arguments):
    with _parsing():
        parsed(arguments)


def _settings_of(parser, settings, arguments):
    def work():
        settings(**options_of(parser.parse_args(arguments), settings))
        return 0

    with _parsing():
        exit_code_of("fuzz", work)


@fuzzed(2.0, arguments=command_lines(export_parser()).map(lambda words: words[1:]))
@example(["--share-matching", LONG])
@example(["--res", f"{LONG}x{LONG}"])
@example(["--batch", LONG])
def test_export(folder, arguments):
    _settings_of(export_parser(), ExportSettings, arguments)


@fuzzed(2.0, arguments=command_lines(calibrate_parser()))
@example(["model.onnx", "--images", "a", "--ignore", LONG])
@example(["model.onnx", "--images", "a", "-o", "a" * 5000])
def test_calibrate(folder, arguments):
    _settings_of(calibrate_parser(), CalibrationSettings, [*arguments, "--images", "frames"])


@fuzzed(2.0, arguments=command_lines(parity_parser()))
def test_parity(folder, arguments):
    _settings_of(parity_parser(), ParitySettings, arguments)


@fuzzed(2.0, arguments=command_lines(bench_parser()))
@example(["model.onnx", "--input-shape", f"{LONG}x3"])
def test_bench(folder, arguments):
    (folder / "model.onnx").touch()
    _settings_of(bench_parser(), BenchSettings, arguments)


@fuzzed(2.0, arguments=command_lines(engine_parser()))
def test_engine(folder, arguments):
    _settings_of(engine_parser(), EngineSettings, arguments)
