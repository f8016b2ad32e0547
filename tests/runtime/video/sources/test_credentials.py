import pytest

from sfpp.runtime.video.sources.address import name_from, without_credentials

SECRET = "s3cr3t"

SHOWN = {
    f"rtsp://admin:{SECRET}@10.0.0.5:554/street": "rtsp://10.0.0.5:554/street",
    f"rtsp://{SECRET}@10.0.0.5/street": "rtsp://10.0.0.5/street",
    f"rtsp://admin:a@{SECRET}@10.0.0.5/street": "rtsp://10.0.0.5/street",
    f"rtsp://admin:a/{SECRET}@10.0.0.5/street": "rtsp://10.0.0.5/street",
    f"rtsp://admin:12/{SECRET}@10.0.0.5/street": "rtsp://10.0.0.5/street",
    f"rtsp://admin:a?{SECRET}@10.0.0.5/street": "rtsp://10.0.0.5/street",
    f"rtsp://admin:a#{SECRET}@10.0.0.5/street": "rtsp://10.0.0.5/street",
    f"RTSP://admin:%73{SECRET}@[fe80::1]:554/street": "RTSP://[fe80::1]:554/street",
    f"http://camera/video?token={SECRET}": "http://camera/video",
    f"http://camera/video?x={SECRET}&channel=2": "http://camera/video?channel=2",
    f"http://camera/video?channel={SECRET}": "http://camera/video",
    f"http://camera/video?PASSWORD={SECRET}#part": "http://camera/video",
    f"http://camera/video#{SECRET}": "http://camera/video",
    f"http://camera/video;sessionid={SECRET}": "http://camera/video;sessionid=***",
    f"rtsp://camera/user=admin&password={SECRET}&channel=1.sdp": "rtsp://camera/user=***",
    f"rtsp://camera/user=admin_password={SECRET}_channel=1/sub": "rtsp://camera/user=***/sub",
    f"rtmp://live.example/app/{SECRET}": "rtmp://live.example/app",
    f"rtmps://u:{SECRET}@live.example:443/app/{SECRET}?key={SECRET}": "rtmps://live.example:443/app",
    f"srt://relay:9000?streamid=x&passphrase={SECRET}": "srt://relay:9000",
    f"udp://{SECRET}@239.0.0.1:1234": "udp://239.0.0.1:1234",
    f"rtsp:/admin:{SECRET}@10.0.0.5/street": "10.0.0.5/street",
    f"admin:{SECRET}@10.0.0.5/street": "10.0.0.5/street",
    f"rstp://admin:{SECRET}@10.0.0.5/street": "rstp://10.0.0.5/street",
    f"gst://rtspsrc location=rtsp://u:{SECRET}@10.0.0.5/street ! fakesink": (
        "gst://rtspsrc location=rtsp://10.0.0.5/street ! fakesink"
    ),
    f'gst://rtspsrc location="rtsp://u:{SECRET}@10.0.0.5/street" user-id=u user-pw={SECRET} ! fakesink': (
        'gst://rtspsrc location="rtsp://10.0.0.5/street" user-id=*** user-pw=*** ! fakesink'
    ),
    f"gst://rtspsrc%20user%2Dpw%3D{SECRET}%20!%20fakesink": "gst://rtspsrc user-pw=*** ! fakesink",
    f'gst://souphttpsrc proxy-pw = "{SECRET} {SECRET}" ! fakesink': "gst://souphttpsrc proxy-pw = *** ! fakesink",
    f"gst://srtsrc passphrase='{SECRET} x' ! queue": "gst://srtsrc passphrase=*** ! queue",
}


@pytest.mark.parametrize("uri", sorted(SHOWN))
def test_what_is_shown_holds_no_secret(uri):
    assert without_credentials(uri) == SHOWN[uri]
    assert SECRET not in without_credentials(uri)
    assert SECRET not in name_from(uri)
    assert without_credentials(SHOWN[uri]) == SHOWN[uri]  # so that cleaning twice does no harm


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://10.0.0.5:8554/street/sub",
        "http://camera/@street/video",
        "http://camera/cam?channel=1&subtype=0",
        "gst://v4l2src device=/dev/video0 ! video/x-raw,width=1280 ! x264enc key-int-max=30",
        "test://",
        "images/a@b.png",
        "recordings/12:30.mp4",
    ],
)
def test_what_is_no_secret_stays(text):
    assert without_credentials(text) == text


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("rtsp://user:secret@10.0.0.5:8554/street/1", "rtsp-10-0-0-5-8554-street-1"),
        ("http://camera.example/video.mjpg?token=1", "http-camera-example-video-mjpg"),
        ("http://camera/cam?channel=1", "http-camera-cam-channel-1"),
        ("rtsp://straße/häuser", "rtsp-straße-häuser"),
        ("rtsp://host/" + "long/" * 40, "rtsp-host-long-long-long-long-long-long-long-long-long-long"),
        ("rtsp://host/../../etc\n/x", "rtsp-host-etc-x"),
        ("://", "source"),
    ],
)
def test_a_name_is_fit_for_a_file(uri, name):
    assert name_from(uri) == name
