"""Connections that do what a test says, without a network."""

import threading

import numpy as np

from sfpp.runtime.errors import MediaError
from sfpp.runtime.video.frame import Picture
from sfpp.runtime.video.sources.link import Link, Opened, open_live

LONG_S = 20.0


class FakeConnection:
    """Delivers ``script``: pictures or their gray levels, None for a sign of life, errors, callables that it calls."""

    def __init__(self, script, opened=None, *, paced=False):
        self.opened = opened or Opened("a fake")
        self.paced = paced
        self.script = script
        self.closed = 0

    def pictures(self):
        for step in self.script:
            if isinstance(step, Exception):
                raise step
            if callable(step):
                step()
            elif isinstance(step, (Picture, type(None))):
                yield step
            else:
                yield gray(step)

    def close(self):
        self.closed += 1


def gray(level, *, size_hw=(4, 6), stamp_s=None):
    return Picture(np.full((*size_hw, 3), level, np.uint8), stamp_s)


class Line:
    """A link whose connections come one after the other from a list; errors among them are failures to connect."""

    def __init__(self, *connections, **settings):
        self.connections = [
            FakeConnection(each) if isinstance(each, (list, tuple)) or hasattr(each, "__next__") else each
            for each in connections
        ]
        self.connected = 0
        self.together = 0  # how many are open at once
        self.threads = []
        self.events = []
        self.link = Link(name="fake", address="fake://", connect=self._connect, **settings)

    def open(self):
        return open_live(self.link, kind="stream", on_event=self.events.append)

    @property
    def told(self):
        return [event.kind for event in self.events]

    def _connect(self):
        self.threads.append(threading.current_thread())
        assert all(each.closed for each in self.connections[: self.connected] if isinstance(each, FakeConnection))
        made = (
            self.connections[self.connected] if self.connected < len(self.connections) else MediaError("nobody there")
        )
        self.connected += 1
        if callable(made):
            made = made()
        if isinstance(made, Exception):
            raise made
        return made


def levels(frames):
    return [int(frame.image_bgr[0, 0, 0]) for frame in frames]


def live_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("sfpp-live")]
