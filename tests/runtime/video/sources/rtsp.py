"""GStreamer's RTSP server, in a process of its own that can be killed, frozen and restarted."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

SERVER = Path(__file__).with_name("rtsp_server.py")
PYTHON = shutil.which("python3", path=os.defpath)  # the system's, which has the bindings, and not the environment's
CAMERA = "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=192,framerate=25/1"
ENCODER = "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25"


class RtspServer:
    """Streams as soon as somebody asks for /street; ``credentials`` are USER:PASSWORD."""

    def __init__(self, pipeline=f"{CAMERA} ! {ENCODER}", *, credentials=""):
        self.arguments = [pipeline, *([credentials] if credentials else [])]
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.start()

    def url(self, *, user="", query=""):
        return f"rtsp://{user}127.0.0.1:{self.port}/street{query}"

    def start(self):
        command = [PYTHON, str(SERVER), str(self.port), *self.arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.kill()


def missing():
    """Say what is not installed, or nothing."""
    check = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    if PYTHON is None or subprocess.run([PYTHON, "-c", check], capture_output=True).returncode:
        return "no Python with GStreamer's RTSP server (Debian: gir1.2-gst-rtsp-server-1.0, python3-gi)"
    inspect = shutil.which("gst-inspect-1.0")
    if inspect is None or subprocess.run([inspect, "x264enc"], capture_output=True).returncode:
        return "GStreamer has no x264enc (Debian: gstreamer1.0-tools, gstreamer1.0-plugins-ugly)"
    return ""
