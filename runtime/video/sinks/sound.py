"""The sound of a video that was read, copied as it is into the one that is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from sfpp.runtime.video.frame import Origin
from sfpp.runtime.video.pyav import reading_options

if TYPE_CHECKING:
    from av.container import OutputContainer

# What a file says of its form, and the muxer says anew.
_OF_THE_FORM = ("major_brand", "minor_version", "compatible_brands", "encoder")


class Sound:
    """Packets of sound that go into an output beside its pictures, at the same times.

    Args:
        origin: the file that was read, of which the first picture has been.
        output: opened for writing, with nothing written yet; it gets a stream for each of sound, and what the file says
            of itself, such as when it was made.
        say: told what sound is left out, and why.
    """

    def __init__(self, origin: Origin, output: OutputContainer, *, say: Callable[[str], object]) -> None:
        import av

        self._input = av.open(str(origin.path.absolute()), **reading_options())
        self._output = output
        self._begin_s = origin.begin_s or 0.0
        output.metadata.update({key: text for key, text in self._input.metadata.items() if key not in _OF_THE_FORM})
        self._streams: dict[int, Any] = {}
        for stream in self._input.streams.audio:
            if origin.begin_s is None:
                say("the sound is left out, since the parts of the file have clocks of their own")
                break
            name = stream.codec_context.name
            if name in output.supported_codecs:
                self._streams[stream.index] = output.add_stream_from_template(stream)
                self._streams[stream.index].metadata.update(stream.metadata)
            else:
                say(f"the sound is left out, since {output.format.name} holds no {name}; .mkv does")
        self._packets: Iterator[tuple[float, Any]] = self._moved()
        self._next = next(self._packets, None)

    def copy_until(self, time_s: float) -> None:
        """Write the packets that begin before ``time_s``, in seconds from the first picture."""
        while self._next is not None and self._next[0] < time_s:
            self._output.mux(self._next[1])
            self._next = next(self._packets, None)

    def close(self) -> None:
        """Close the file that is read."""
        self._packets, self._next = iter(()), None  # or a cycle would keep both files until garbage is collected
        self._input.close()

    def _moved(self) -> Iterator[tuple[float, Any]]:
        """Yield the packets with their times from the first picture on; what begins before it is left out."""
        import av

        packets = self._input.demux(self._input.streams.audio) if self._streams else iter(())
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:  # as where the file breaks off, of which its pictures tell
                return
            if packet is None:
                return
            if packet.dts is None or packet.pts is None or packet.stream.index not in self._streams:
                continue
            moved = round(self._begin_s / packet.time_base)
            packet.pts, packet.dts = packet.pts - moved, packet.dts - moved
            # One that began earlier would move all that is written, the pictures too.
            if packet.pts >= 0:
                packet.stream = self._streams[packet.stream.index]
                yield float(packet.pts * packet.time_base), packet
