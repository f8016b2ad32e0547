"""GStreamer's RTSP server, which records what is published to /cam by annika; run by the system's own Python."""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 - the versions come first


def main(port, path):
    Gst.init(None)
    server = GstRtspServer.RTSPServer.new()
    server.set_address("127.0.0.1")
    server.set_service(port)
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "sender")
    password = GstRtspServer.RTSPAuth.make_basic("annika", "geheim")
    access = GstRtspServer.RTSPAuth.new()
    access.add_basic(password, token)
    server.set_auth(access)
    permissions = GstRtspServer.RTSPPermissions.new()
    permissions.add_permission_for_role("sender", "media.factory.access", True)
    permissions.add_permission_for_role("sender", "media.factory.construct", True)
    factory = GstRtspServer.RTSPMediaFactory.new()
    muxer = "mp4mux fragment-duration=100 streamable=true"
    factory.set_launch(f"( rtph264depay name=depay0 ! h264parse ! {muxer} ! filesink location={path} )")
    factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
    factory.set_permissions(permissions)
    server.get_mount_points().add_factory("/cam", factory)
    server.attach(None)
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(*sys.argv[1:])
