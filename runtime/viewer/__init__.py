"""A running pipeline in the browser: one page that shows frames, classes, latencies and events while they come.

    with Viewer(model, port=8080) as viewer:
        print(viewer.url)
        ...
        viewer.show(ViewerUpdate(source="front", index=frame.index, image_bgr=frame.image_bgr, labels=result.labels))

``show`` never waits: the server has a thread of its own, keeps only the newest update of each source, and draws and
encodes only what is being watched.

Frames go through a WebSocket, each as a JPEG, and not as a motion-JPEG stream: the page acknowledges every one, so a
slow network or a sleeping tab holds one and never a queue of old ones, figures and frames stay together, a lost
connection is noticed at both ends, and browsers do not run out of their six connections a host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfpp.runtime.imports import lazy_names
from sfpp.runtime.viewer.listening import address_from
from sfpp.runtime.viewer.update import Limits, ViewerUpdate

if TYPE_CHECKING:
    from sfpp.runtime.viewer.viewer import Viewer

__all__ = ["Limits", "Viewer", "ViewerUpdate", "address_from"]

__getattr__, _ = lazy_names(
    __name__, {"sfpp.runtime.viewer.viewer": "Viewer"}, extra="viewer", purpose="the browser viewer"
)
