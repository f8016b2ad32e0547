"""What tests of the viewer share: frames to show, and a page that looks, without a browser."""

import contextlib
import dataclasses
import http.client
import json
import socket
import struct
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

import sfpp.runtime.viewer
from sfpp.runtime import KeypointSpec, OutputSpec, PoseEstimator, Segmenter
from sfpp.runtime.backends import FunctionBackend
from sfpp.runtime.model import SelfTestState
from sfpp.runtime.viewer import ViewerUpdate
from tests.runtime.video import clips

# Test modules take the viewer from here, so they are skipped rather than broken where it cannot be imported.
aiohttp = pytest.importorskip("aiohttp", reason="the viewer needs aiohttp: pip install 'sfpp[viewer]'")
Viewer = sfpp.runtime.viewer.Viewer

__all__ = [
    "CLASSES",
    "CONTRACT",
    "PALETTE",
    "POSE",
    "Page",
    "Shown",
    "Viewer",
    "aiohttp",
    "ask",
    "clients_of",
    "close_to",
    "model_shown",
    "opened",
    "shake_hands",
    "update",
]

PASSED = SelfTestState("passed")
CLASSES = ("road", "sky", "car")
PALETTE = ((200, 0, 0), (0, 200, 0), (0, 0, 200))

CONTRACT = dataclasses.replace(clips.CONTRACT, classes=CLASSES, palette=PALETTE)

POSE = dataclasses.replace(
    CONTRACT,
    task="pose",
    outputs=(OutputSpec("heatmaps", "heatmaps", 4),),
    classes=(),
    palette=(),
    keypoints=KeypointSpec(names=("left_x", "right_x"), flip_pairs=((0, 1),)),
)


def model_shown(contract=CONTRACT, *, self_test=PASSED):
    """A model whose results are shown; it is never run."""
    kind = PoseEstimator if contract.task == "pose" else Segmenter
    model = kind(FunctionBackend(lambda inputs: inputs, metadata={}), contract)
    model.self_test = self_test
    return model


def update(index=0, *, source="front", size_hw=(36, 64), **options):
    """A grey frame that grows brighter with its index; three columns of road, sky and car."""
    height, width = size_hw
    image = np.full((height, width, 3), 40 + index % 100, np.uint8)
    labels = np.repeat(np.repeat(np.arange(3, dtype=np.uint8), -(-width // 3))[None, :width], height, axis=0)
    given = {
        "labels": labels,
        "shares": {"road": 1 / 3, "sky": 1 / 3, "car": 1 / 3},
        "stages_ms": {"decode": 2.0, "infer": 20.0},
        "age_ms": 30.0,
        "frames_per_second": 25.0,
    }
    return ViewerUpdate(source=source, index=index, image_bgr=image, **{**given, **options})


@dataclasses.dataclass
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def text(self):
        return self.body.decode()


def ask(url, path="/", *, method="GET", **headers):
    """Ask for a path as a browser would; names of headers with _ for -."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
    with contextlib.closing(connection):
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return Answer(response.status, {key.lower(): value for key, value in response.headers.items()}, response.read())


def clients_of(viewer):
    return int(ask(viewer.url, "/metrics").text.partition("\nsfpp_viewer_clients ")[2].split()[0])


def shake_hands(url, *, receive_bytes=4096):
    """A WebSocket whose other end never reads."""
    parts = urlsplit(url)
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    raw.settimeout(20)
    raw.connect((parts.hostname, parts.port))
    raw.sendall(
        f"GET /stream HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    return raw


@dataclasses.dataclass
class Shown:
    """A picture as a page gets it."""

    header: dict
    image: np.ndarray


class Page:
    """A page's side of the stream; acknowledges pictures unless it is asked not to."""

    def __init__(self, socket):
        self.socket = socket

    async def next(self):
        """The next message: a dictionary, or a picture."""
        message = await self.socket.receive(timeout=20)
        if message.type is aiohttp.WSMsgType.TEXT:
            return json.loads(message.data)
        assert message.type is aiohttp.WSMsgType.BINARY, message
        (length,) = struct.unpack_from(">I", message.data)
        header = json.loads(message.data[4 : 4 + length])
        jpeg = np.frombuffer(message.data[4 + length :], np.uint8)
        return Shown(header, cv2.imdecode(jpeg, cv2.IMREAD_COLOR))

    async def picture(self, *, acknowledge=True):
        """The next picture."""
        while not isinstance(message := await self.next(), Shown):
            pass
        if acknowledge:
            await self.send(type="shown")
        return message

    async def status(self):
        """The next status; pictures before it are acknowledged."""
        while True:
            message = await self.next()
            if isinstance(message, Shown):
                await self.send(type="shown")
            elif message["type"] == "status":
                return message

    async def send(self, **message):
        await self.socket.send_str(json.dumps(message))

    async def until(self, condition, *, most=60):
        """The first picture of which the condition is true."""
        for _ in range(most):
            picture = await self.picture()
            if condition(picture):
                return picture
        raise AssertionError(f"not among {most} pictures")


@contextlib.asynccontextmanager
async def opened(url, **options):
    """A page that has just been opened; the hello is in ``page.hello``."""
    parts = urlsplit(url)
    async with (
        aiohttp.ClientSession() as client,
        client.ws_connect(f"ws://{parts.netloc}/stream?{parts.query}", max_msg_size=0, **options) as socket,
    ):
        page = Page(socket)
        page.hello = await page.next()
        yield page


def close_to(image, bgr, *, tolerance=6):
    """Whether all of an area has a color, but for what JPEG does to it."""
    return bool(np.abs(image.astype(int) - np.array(bgr)).max() <= tolerance)
