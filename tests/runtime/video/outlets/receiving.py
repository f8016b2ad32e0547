"""FFmpeg at the other end of the line: receives what is pushed, on this machine's own address."""

import contextlib
import socket
import threading
import time

import av

from tests.runtime.video.clips import frame, index_of, picture

LISTENING = {
    "rtsp": {"rtsp_flags": "listen", "rtsp_transport": "tcp", "listen_timeout": "20"},
    "rtmp": {"listen": "1"},
    "udp": {"timeout": "3000000"},
}
QUICK = {"probesize": "32768", "analyzeduration": "100000"}


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Receiving:
    """Decodes in a thread of its own until the sender ends, or until ``most`` frames have come."""

    def __init__(self, uri, *, most=None):
        self.images, self.times_s, self.key_times_s = [], [], []
        self._uri = uri
        self._most = most
        self._thread = threading.Thread(target=self._receive, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._thread.join(20)
        assert not self._thread.is_alive()

    @property
    def indices(self):
        return [index_of(image) for image in self.images]

    def _receive(self):
        options = {**LISTENING[self._uri.partition(":")[0]], **QUICK}
        with contextlib.suppress(av.FFmpegError), av.open(self._uri, options=options, timeout=(20, 5)) as container:
            for image in container.decode(video=0):
                self.times_s.append(image.time)
                self.images.append(image.to_ndarray(format="bgr24"))
                if image.key_frame:
                    self.key_times_s.append(image.time)
                if len(self.images) == self._most:
                    return


def write_until(sink, done, *, step_s=1 / 30, pause_s=0.01, start=0, limit_s=20):
    """Write pictures of rising index until ``done()``; return how many there were."""
    count, end_s = 0, time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < end_s, "nothing came of it"
        index = start + count
        sink.write(frame(index, time_s=index * step_s), picture(index))
        count += 1
        time.sleep(pause_s)
    return count
