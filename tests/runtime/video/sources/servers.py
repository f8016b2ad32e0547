"""Servers on the loopback that can be killed, restarted, and made to misbehave."""

import contextlib
import http.server
import socket
import threading
import time
from fractions import Fraction

import av
import cv2

from tests.runtime.video.clips import picture

BOUNDARY = "frame-of-the-street"


def jpeg(index, *, size_hw=(48, 64)):
    return cv2.imencode(".jpg", picture(index, size_hw=size_hw))[1].tobytes()


class Answer:
    """What a server does with a connection; by default pictures for ever, one every ``interval_s``."""

    def __init__(
        self, *, pictures=None, interval_s=0.005, then="close", length=None, sizes_hw=((48, 64),), change=20, head=True
    ):
        self.pictures = pictures  # how many a connection gets
        self.interval_s = interval_s
        self.then = then  # "close" or "hang"
        self.length = length  # that it claims
        self.sizes_hw = sizes_hw  # one after the other, each for ``change`` pictures
        self.change = change
        self.head = head  # whether the boundary comes before the first picture too


class MjpegServer:
    """Pictures one by one over HTTP, as many cameras send them."""

    def __init__(self, answer=None):
        self.answer = answer or Answer()
        self.port = 0
        self.connections = 0
        self.requested = []  # paths with their queries
        self.start()

    def url(self, *, query="", user="", path="/street"):
        return f"http://{user}127.0.0.1:{self.port}{path}{query}"

    def start(self):
        self._stopping = threading.Event()
        self._sockets = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="mjpeg", daemon=True)
        self._thread.start()

    def kill(self):
        """Close the port and all connections; those that are within a call end with an error of their own."""
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.kill()

    def _handler(outer):  # noqa: N805 - the handler has a self of its own
        stopping, sockets = outer._stopping, outer._sockets

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                sockets.append(self.connection)
                outer.connections += 1
                outer.requested.append(self.path)
                with contextlib.suppress(OSError):
                    outer.reply(self, stopping)

            def log_message(self, *arguments):
                pass

        return Handler

    def reply(self, handler, stopping):
        answer = self.answer
        handler.send_response(200)
        if answer.length is not None:
            handler.send_header("Content-Length", str(answer.length))
        handler.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        handler.end_headers()
        index = 0
        while not stopping.is_set() and (answer.pictures is None or index < answer.pictures):
            size_hw = answer.sizes_hw[index // answer.change % len(answer.sizes_hw)]
            data = jpeg(index, size_hw=size_hw)
            boundary = f"--{BOUNDARY}\r\n" if index or answer.head else ""
            head = f"{boundary}Content-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            handler.wfile.write(head.encode() + data + b"\r\n")
            index += 1
            time.sleep(answer.interval_s)
        if answer.then == "hang":
            stopping.wait()


class SocketServer:
    """Gives every connection to ``talk``, in a thread; connections of a killed server are cut."""

    def __init__(self, talk):
        self.talk = talk
        self.port = 0
        self.connections = 0
        self.start()

    def start(self):
        self._stopping = threading.Event()
        self._sockets = []
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, args=(self._listening, self._stopping), daemon=True)
        self._thread.start()

    def kill(self):
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.kill()

    def _accept(self, listening, stopping):
        while not stopping.is_set():
            try:
                accepted, _ = listening.accept()
            except OSError:
                return
            self.connections += 1
            self._sockets.append(accepted)
            threading.Thread(target=self._serve, args=(accepted, stopping), daemon=True).start()

    def _serve(self, accepted, stopping):
        with accepted, contextlib.suppress(OSError):
            self.talk(accepted, stopping)


def send_mpegts(accepted, stopping, *, pictures=100_000, interval_s=0.005, head=b""):
    """H.264 in MPEG-TS, as an encoder sends it: a key frame every tenth picture."""
    if head:
        accepted.recv(4096)
        accepted.sendall(head)
    with av.open(_Writer(accepted), mode="w", format="mpegts") as container:
        options = {"bf": "0", "g": "10", "preset": "ultrafast", "tune": "zerolatency"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(pictures):
            image = av.VideoFrame.from_ndarray(picture(index), format="bgr24")
            image.pts, image.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(image))
            if stopping.wait(interval_s):
                return


class _Writer:
    """A file for PyAV that is a socket; what comes after the other side has gone is nobody's loss."""

    def __init__(self, accepted):
        self._socket = accepted

    def write(self, data):
        with contextlib.suppress(OSError):
            self._socket.sendall(data)
        return len(data)


class FileServer:
    """Files of a folder over HTTP, whole or cut off after ``cut`` bytes."""

    def __init__(self, folder):
        self.requested = []
        self.cut = None
        self.before_answering = lambda: None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requested.append(self.path)
                path = folder / self.path.partition("?")[0].strip("/")
                if not path.is_file():
                    self.send_error(404)
                    return
                outer.before_answering()
                data = path.read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(data[: outer.cut])

            def log_message(self, *arguments):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
