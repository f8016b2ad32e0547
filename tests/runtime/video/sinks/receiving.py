"""FFmpeg at the other end of the line: receives what is pushed, on this machine's own address."""

import socket
import threading
import time

import av

from tests.runtime.video.clips import frame, index_of, picture

LISTENING = {
    "rtsp": {"rtsp_flags": "listen", "rtsp_transport": "tcp", "listen_timeout": "3600"},  # FFmpeg wants one
    "rtmp": {"listen": "1"},
    "udp": {},
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
        self._error = None
        self._thread = threading.Thread(target=self._receive, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, *error):
        if kind is None:  # after a failure nobody may be sending what it waits for
            self._thread.join()

    @property
    def indices(self):
        return [index_of(image) for image in self.images]

    def has(self, count):
        """Tell whether so many frames have come; one who receives no more will never have them."""
        ended = not self._thread.is_alive()  # asked first, so that what came last is counted
        found = len(self.images) >= count
        assert found or not ended, f"the receiver ended after {len(self.images)} frames: {self._error}"
        return found

    def _receive(self):
        try:
            self._decode()
        except av.FFmpegError as error:
            self._error = error

    def _decode(self):
        options = {**LISTENING[self._uri.partition(":")[0]], **QUICK}
        with av.open(self._uri, options=options) as container:
            for image in container.decode(video=0):
                self.times_s.append(image.time)
                self.images.append(image.to_ndarray(format="bgr24"))
                if image.key_frame:
                    self.key_times_s.append(image.time)
                if len(self.images) == self._most:
                    return


def write_until(sink, done, *, step_s=1 / 30, pause_s=0.01, start=0):
    """Write pictures of rising index until ``done()``; return how many there were."""
    count = 0
    while not done():
        index = start + count
        sink.write(frame(index, time_s=index * step_s), picture(index))
        count += 1
        time.sleep(pause_s)
    return count
