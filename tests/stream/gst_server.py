"""H.264 over RTSP from GStreamer's own server: colour bars that are sent to whoever asks.

usage: /usr/bin/python3 gst_server.py PORT WIDTHxHEIGHT

Run by the system's Python, which has GStreamer's bindings. Prints the port once it listens. Each line of standard
input is another size: it changes on the way.
"""

from __future__ import annotations

import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")

from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 (versions are chosen above)

# parameter sets before every key frame, and one of those each second: who comes late can decode
LAUNCH = (
    "( videotestsrc is-live=true pattern=smpte75 ! capsfilter name=size ! "
    "openh264enc complexity=low gop-size=20 bitrate=600000 ! h264parse ! "
    "rtph264pay config-interval=-1 name=pay0 pt=96 )"
)


def caps(size: str) -> Gst.Caps:
    """Of pictures of a size, 20 a second."""
    width, height = size.split("x")
    return Gst.Caps.from_string(f"video/x-raw,format=I420,width={width},height={height},framerate=20/1")


class Bars(GstRtspServer.RTSPMediaFactory):
    """One encoder for all clients."""

    def __init__(self, size: str) -> None:
        super().__init__()
        self.size = size
        self.filters: list[Gst.Element] = []
        self.set_shared(True)
        self.set_launch(LAUNCH)
        self.connect("media-configure", self.configure)

    def configure(self, _: object, media: GstRtspServer.RTSPMedia) -> None:
        """Set the size of a new encoder."""
        self.filters.append(media.get_element().get_by_name("size"))
        self.resize(self.size)

    def resize(self, size: str) -> None:
        """Change it, for those who are connected too."""
        self.size = size
        for each in self.filters:
            each.set_property("caps", caps(size))


def main() -> None:
    """Serve until standard input ends."""
    Gst.init(None)
    port, size = sys.argv[1:]
    server, bars, loop = GstRtspServer.RTSPServer(), Bars(size), GLib.MainLoop()
    server.set_address("127.0.0.1")
    server.set_service(port)
    server.get_mount_points().add_factory("/video", bars)
    if server.attach(None) == 0:
        sys.exit(f"port {port} is taken")

    def listen() -> None:
        for line in sys.stdin:
            GLib.idle_add(bars.resize, line.strip())
        loop.quit()

    threading.Thread(target=listen, daemon=True).start()
    sys.stdout.write(f"{server.get_bound_port()}\n")
    sys.stdout.flush()
    loop.run()


if __name__ == "__main__":
    main()
