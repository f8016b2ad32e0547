import pytest

from sfpp.runtime import MediaError, UsageError
from sfpp.runtime.video.sinks.push import PROTOCOLS, Receiver, check_protocol, is_receiver


@pytest.mark.parametrize(
    ("uri", "container", "name"),
    [
        ("rtsp://ann:geheim@cam.local:8554/street", "rtsp", "rtsp://cam.local:8554/street"),
        ("RTSPS://cam.local/street?token=geheim", "rtsp", "RTSPS://cam.local/street"),
        ("rtmp://live.example.org/app/geheim", "flv", "rtmp://live.example.org/app"),
        ("rtmps://live.example.org:443/app/geheim?a=b", "flv", "rtmps://live.example.org:443/app"),
        ("srt://10.0.0.5:9000?passphrase=geheim", "mpegts", "srt://10.0.0.5:9000"),
        ("srt://:9000?mode=listener", "mpegts", "srt://:9000"),
        ("udp://10.0.0.5:5000", "mpegts", "udp://10.0.0.5:5000"),
    ],
)
def test_an_address_has_a_container_and_a_name_without_secrets(uri, container, name):
    receiver = Receiver.from_uri(uri)
    assert (receiver.protocol.container, receiver.name) == (container, name)
    assert receiver.uri.startswith(uri)
    assert "geheim" not in repr(receiver)


@pytest.mark.parametrize(
    ("uri", "sent_to"),
    [
        ("udp://10.0.0.5:5000", "udp://10.0.0.5:5000?pkt_size=1316"),
        ("udp://10.0.0.5:5000?ttl=3", "udp://10.0.0.5:5000?ttl=3&pkt_size=1316"),
        ("udp://10.0.0.5:5000?pkt_size=188", "udp://10.0.0.5:5000?pkt_size=188"),
        ("srt://10.0.0.5:5000", "srt://10.0.0.5:5000"),
    ],
)
def test_datagrams_hold_whole_packets(uri, sent_to):
    assert Receiver.from_uri(uri).uri == sent_to


@pytest.mark.parametrize(
    "uri",
    [
        "rtsp://user:geheim@",
        "rtsp://user:geheim@host",
        "rtmp://geheim",
        "rtmp:///app/geheim",
        "srt://geheim",
        "srt://host:geheim",
        "udp://geheim",
        "udp://[::1:5000/geheim",
    ],
)
def test_incomplete_addresses_are_not_repeated_but_told_by_an_example(uri):
    scheme = uri.partition(":")[0]
    with pytest.raises(UsageError, match=f"this {scheme}:// address is not complete; expected ") as caught:
        Receiver.from_uri(uri)
    assert str(caught.value).endswith(PROTOCOLS[scheme].example)
    assert "geheim" not in str(caught.value)


def test_other_protocols_are_named():
    with pytest.raises(UsageError, match=r"sip:// is no protocol to send video by; expected one of rtsp, rtsps, rtmp"):
        Receiver.from_uri("sip://user:geheim@host")


def test_an_ffmpeg_without_srt_says_so(monkeypatch):
    import av

    for uri in ("rtsp://h/p", "rtmp://h/a/k", "udp://h:1"):
        check_protocol(Receiver.from_uri(uri))

    def missing(*arguments):
        raise av.error.ProtocolNotFoundError(1, "Protocol not found", "srt://")

    def without_host(*arguments):
        raise av.FFmpegError(22, "Invalid argument")

    receiver = Receiver.from_uri("srt://h:9000?passphrase=geheim")
    monkeypatch.setattr(av, "open", missing)
    with pytest.raises(
        MediaError, match=r"cannot send video to srt://h:9000: the FFmpeg within PyAV was built without"
    ):
        check_protocol(receiver)
    monkeypatch.setattr(av, "open", without_host)
    check_protocol(receiver)


@pytest.mark.parametrize("place", ["rtsp://host/live", "RTMP://host/app/key", "udp://host:1", "srt://:9000"])
def test_addresses_that_video_is_sent_to(place):
    assert is_receiver(place)


@pytest.mark.parametrize("place", ["rtsp", "rtsp:/host", "out.mp4", "raw://-", "http://host/live", "", "udp"])
def test_other_places_are_no_receivers(place):
    assert not is_receiver(place)
