"""GStreamer pipelines, and a Jetson's CSI cameras by them, through an OpenCV that was built with GStreamer."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args
from urllib.parse import unquote

from sfpp.runtime.contract import Matrix
from sfpp.runtime.errors import MediaError, UsageError
from sfpp.runtime.events import EventHandler
from sfpp.runtime.imports import cv2_text, import_cv2
from sfpp.runtime.video.frame import Source
from sfpp.runtime.video.sources.address import Address, Options, name_from, pipeline_without_credentials
from sfpp.runtime.video.sources.camera import CaptureConnection, silenced
from sfpp.runtime.video.sources.captured import CapturedFormat, captured_format
from sfpp.runtime.video.sources.link import RECONNECT_OPTIONS, Link, open_live

CSI_EXAMPLE = "csi://0?width=1920&height=1080&fps=30&flip=2"
GST_EXAMPLE = "gst://v4l2src device=/dev/video0 ! video/x-raw,width=1280,height=720"
# Only the newest frame waits, and none waits for its time.
_APPSINK = "appsink drop=true max-buffers=1 sync=false"
_SINK = f"videoconvert ! video/x-raw,format=BGR ! {_APPSINK}"
_ENDS_IN_SINK = re.compile(r"!\s*appsink\b[^!]*$")
_FILE = re.compile(r'\blocation\s*=\s*("[^"]*"|(?:\\.|[^\s"!])+)|\buri\s*=\s*"?file://([^\s"]+)')
_FINITE = re.compile(r"\bnum-buffers\s*=\s*\d|\b(?:multi)?filesrc\b|\buri\s*=\s*\"?file:")
_CSI_OPTIONS = ("width", "height", "fps", "flip", "matrix", *RECONNECT_OPTIONS)
_CSI_WIDTH, _CSI_HEIGHT, _CSI_RATE = 1920, 1080, Fraction(30)
_MOST_SENSORS = 15
_MOST_FLIP = 7
# A control character is never meant, and %05d counts the files of a multifilesrc.
_NOT_ENCODED = re.compile(r"%(?=[01][0-9A-Fa-f])")
_ELEMENT = re.compile(r"\s*([A-Za-z][\w-]*)(?=\s|$)(?!\s*=)")
# The first time, GStreamer looks at all its plugins.
_INSPECTING_S = 20.0
# OpenCV's own limit is 30 s, from version 4.7 on; before, it has none.
_CONNECTING_S = 40.0
_CSI_CHECK = (
    "this is a Jetson with NVIDIA's plugins (gst-inspect-1.0 nvarguscamerasrc), the camera's ribbon and its device "
    "tree (ls /dev/video*), and the daemon (systemctl status nvargus-daemon; in a container, mount /tmp/argus_socket); "
    "then that no other program uses the camera, and that it has this size and rate"
)
_DECODER_CHECK = (
    "this is a Jetson with NVIDIA's plugins (gst-inspect-1.0 nvv4l2decoder), and that the address plays with "
    "decoder=software"
)
_RTSP_LATENCY_MS = 100  # that rtspsrc waits for packets that are late
_GONE = "the pipeline delivers no more frames"
_HOW_TO_GET_IT = (
    "get one: on a Jetson JetPack's own, on Debian and Ubuntu apt install python3-opencv; both with a virtual "
    "environment made with --system-site-packages, in which no opencv-python shadows it"
)


def open_gst(address: Address, *, on_event: EventHandler) -> Source:
    """Open ``gst://PIPELINE``; an appsink is appended if it does not end in one.

    What its last caps say is converted here, and what they do not say, by a videoconvert that is appended, too.

    It is started anew when it ends, unless it reads a file or counts its buffers. Raises as :func:`.open_source`.
    """
    if not address.place.strip():
        raise UsageError(f"gst:// holds no pipeline; expected one as in {GST_EXAMPLE!r}")
    pipeline = _Pipeline(
        pipeline_from(address.place),
        what="a GStreamer pipeline",
        check="gst-launch-1.0 runs it with autovideosink in the appsink's place",
    )
    link = pipeline.link(f"gst-{name_from(pipeline.shown.partition('!')[0])}", address="gst://")
    return open_live(link, kind="camera", on_event=on_event, paths=files_in(pipeline_from(address.place)))


def open_csi(address: Address, *, on_event: EventHandler) -> Source:
    """Open ``csi://0``, a Jetson's camera by its number, at ``?width=&height=&fps=``, turned by ``flip=0..7``.

    Its NV12 is taken as BT.601, as NVIDIA's NVBUF_COLOR_FORMAT_NV12 is defined; ``matrix=bt709`` says otherwise.

    Raises as :func:`.open_source`.
    """
    options = Options(address, known=_CSI_OPTIONS, example=CSI_EXAMPLE)
    place = address.place
    if not (re.fullmatch(r"[0-9]{1,3}", place) and int(place) <= _MOST_SENSORS):
        raise UsageError(f"{address.shown} names no sensor; expected its number as in {CSI_EXAMPLE}")
    text = csi_pipeline(
        int(place),
        width=options.integer("width") or _CSI_WIDTH,
        height=options.integer("height") or _CSI_HEIGHT,
        frames_per_second=options.rate("fps") or _CSI_RATE,
        flip=options.integer("flip", 0, least=0, most=_MOST_FLIP) or 0,
    )
    matrix: Any = options.choice("matrix", get_args(Matrix), "bt601")
    pipeline = _Pipeline(text, what="a CSI camera", check=_CSI_CHECK, captured=CapturedFormat("NV12", matrix))
    link = pipeline.link(f"csi{int(place)}", address=address.shown)
    return open_live(link, kind="camera", on_event=on_event, options=options)


def open_decoded_by_jetson(
    address: Address, url: str, *, options: Options, transport: str, timeout_s: float, on_event: EventHandler
) -> Source:
    """Open ``rtsp://`` with GStreamer, whose decodebin takes a Jetson's own decoder.

    Args:
        address: as it was given.
        url: what GStreamer is given.
        options: with those of connecting again.
        transport: ``tcp`` or ``udp``.
        timeout_s: it counts as lost when no picture comes for so long.
        on_event: as for :func:`.open_source`, as which it raises.
    """
    pipeline = _Pipeline(rtsp_pipeline(url, transport=transport), what="hardware decoding", check=_DECODER_CHECK)
    link = replace(pipeline.link(address.name, address=address.shown), timeout_s=timeout_s)
    return open_live(link, kind="stream", on_event=on_event, options=options)


def rtsp_pipeline(url: str, *, transport: str) -> str:
    """Return the pipeline that decodes a stream with nvv4l2decoder.

    NVIDIA's converter makes colors of it, since only it knows the matrix that the stream says.
    """
    quoted = url.replace("\\", "\\\\").replace('"', '\\"')
    source = f'rtspsrc location="{quoted}" protocols={transport} latency={_RTSP_LATENCY_MS}'
    decoded = "application/x-rtp,media=video ! decodebin ! video/x-raw(memory:NVMM)"
    return f"{source} ! {decoded} ! nvvidconv ! video/x-raw,format=BGRx ! {_SINK}"


def csi_pipeline(sensor: int, *, width: int, height: int, frames_per_second: Fraction, flip: int) -> str:
    """Return the pipeline for a Jetson's camera; ``flip`` is nvvidconv's: 2 turns the picture upside down."""
    rate = f"{frames_per_second.numerator}/{frames_per_second.denominator}"
    camera = f"nvarguscamerasrc sensor-id={sensor}"
    taken = f"video/x-raw(memory:NVMM),width={width},height={height},framerate={rate},format=NV12"
    # nvvidconv brings the picture from the GPU's memory to the CPU's. NV12 is the least to bring, and one conversion.
    return f"{camera} ! {taken} ! nvvidconv flip-method={flip} ! video/x-raw,format=NV12 ! {_APPSINK}"


def pipeline_from(place: str) -> str:
    """Decode the text behind gst://, and append what OpenCV needs at the end if it is not there."""
    pipeline = unquote(_NOT_ENCODED.sub("%25", place)).strip().rstrip("!").strip()
    if _ENDS_IN_SINK.search(pipeline):
        return pipeline
    return f"{pipeline} ! {_APPSINK if captured_format(pipeline).is_known else _SINK}"


def files_in(pipeline: str) -> tuple[Path, ...]:
    """Return the files that a pipeline names and that exist: ``location=clip.mp4``, ``uri=file:///clip.mp4``."""
    found = []
    for location, uri in _FILE.findall(pipeline):
        text = (location or uri).strip('"')
        found.append(Path(unquote(text) if uri else re.sub(r"\\(.)", r"\1", text)))
    return tuple(path for path in found if path.is_file())


def missing_elements(pipeline: str) -> list[str]:
    """Return the elements of a pipeline that this GStreamer does not have, as far as can be told.

    OpenCV does not tell, and its version 4.6 waits for ever for a pipeline that lacks one. What is no plain name (caps,
    references, parts of quoted texts) is passed over, and without GStreamer's tools all elements are taken to exist.
    """
    tool = shutil.which("gst-inspect-1.0")
    names = [found.group(1) for part in pipeline.split("!") if (found := _ELEMENT.match(part))]
    return [name for name in dict.fromkeys(names) if tool is not None and not _exists(tool, name)]


def _exists(tool: str, name: str) -> bool:
    try:
        done = subprocess.run([tool, "--exists", name], capture_output=True, timeout=_INSPECTING_S)
    except (OSError, subprocess.TimeoutExpired):
        return True  # nothing was found out
    return done.returncode != 1


class _Pipeline:
    """A pipeline that can be opened; ``shown`` is it without credentials.

    Args:
        text: what OpenCV is given.
        what: begins the messages.
        check: what to check if it cannot be opened.
        captured: the form of its pictures; by default what its caps say.

    Raises:
        MediaError: OpenCV was built without GStreamer.
        UsageError: its caps say a form that is not known here.
    """

    def __init__(self, text: str, *, what: str, check: str, captured: CapturedFormat | None = None) -> None:
        self.shown = pipeline_without_credentials(text)
        self._text = text
        self._what = what
        self._check = check
        self._captured = captured or captured_format(text)
        self._cv2 = import_cv2(purpose=f"reading {what}")
        if not re.search(r"GStreamer:\s+YES", self._cv2.getBuildInformation()):
            raise MediaError(
                f"{what} needs an OpenCV that was built with GStreamer, and this one ({self._cv2.__version__}) was "
                f"not; {_HOW_TO_GET_IT}. The pipeline would be: {self.shown}"
            )

    def link(self, name: str, *, address: str) -> Link:
        """Return how it is connected."""
        late = self._failed("nothing happens")
        return Link(name, address, self._connect, connecting_s=_CONNECTING_S, unanswered=late)

    def _connect(self) -> CaptureConnection:
        missing = missing_elements(self._text)
        if missing:
            raise MediaError(self._failed(f"GStreamer has no {', '.join(missing)}"))
        cv2 = self._cv2
        with silenced(cv2):
            capture = cv2.VideoCapture(cv2_text(self._text), cv2.CAP_GSTREAMER)
        if not capture.isOpened():
            capture.release()
            raise MediaError(self._failed("it does not start"))
        width, height = (int(capture.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        return CaptureConnection(
            capture,
            detail=f"{width}x{height} by {self.shown}",
            gone=_GONE,
            finite=_FINITE.search(self._text) is not None,
            to_bgr=lambda image: self._captured.to_bgr(image, max(0, height)),
        )

    def _failed(self, reason: str) -> str:
        return f"{self._what} cannot be opened: {reason}; check that {self._check}. The pipeline is: {self.shown}"
