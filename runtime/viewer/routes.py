"""What can be asked of the viewer: the page and its files, the stream of frames, snapshots, metrics, health."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from aiohttp import WSCloseCode, web

from sfpp.runtime.errors import MediaError, UsageError
from sfpp.runtime.viewer.access import Access, add_security_headers, is_own_page
from sfpp.runtime.viewer.connections import Connections
from sfpp.runtime.viewer.drawing import PictureFormat, ViewSetting, draw_view, encode
from sfpp.runtime.viewer.messages import LARGEST_MESSAGE, setting_from
from sfpp.runtime.viewer.prometheus import CONTENT_TYPE, metrics_text
from sfpp.runtime.viewer.session import GOODBYE_S, Hub, Session
from sfpp.runtime.viewer.update import Limits, ViewerUpdate

# Snapshots that may wait for the one thread that makes them, each with a frame in its hands.
_MOST_SNAPSHOTS = 4
_FOLDER = Path(__file__).parent / "static"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FILES = {path.name: path for path in _FOLDER.iterdir() if path.suffix in _TYPES}
# Browsers ask for the old name of an icon wherever a page does not name one, as on the way past the token.
_OTHER_NAMES = {"": "index.html", "favicon.ico": "icon.svg"}


class Routes:
    """The handlers of all requests.

    Args:
        hub: what the pages share.
        access: who is let in.
        connections: who gets a place.
    """

    def __init__(self, hub: Hub, access: Access, connections: Connections) -> None:
        self._hub = hub
        self._access = access
        self._connections = connections
        self._snapshots = 0

    def application(self) -> web.Application:
        """Return the application, which answers GET and HEAD and takes no bodies."""
        # No handler reads a body; a size of 1 byte makes sure that none is ever taken in.
        middlewares = [self._access.middleware, self._connections.middleware]
        application = web.Application(middlewares=middlewares, client_max_size=1)
        application.on_response_prepare.extend([add_security_headers, self._connections.end_after_answer])
        application.add_routes(
            [
                web.get("/", self.file),
                web.get("/static/{name}", self.file),
                web.get("/{name:favicon.ico}", self.file),
                web.get("/stream", self.stream),
                web.get("/snapshot", self.snapshot),
                web.get("/metrics", self.metrics),
                web.get("/healthz", self.health),
            ]
        )
        return application

    async def file(self, request: web.Request) -> web.FileResponse:
        """Answer with a file of the page. There are no others to be had, whatever path is asked for."""
        name = request.match_info.get("name", "")
        path = _FILES.get(_OTHER_NAMES.get(name, name))
        if path is None:
            raise web.HTTPNotFound(text="404: Not Found\n")
        # No browser keeps it (see ``add_security_headers``), so that a new sfpp never meets an old script.
        return web.FileResponse(path, headers={"Content-Type": _TYPES[path.suffix]})

    async def stream(self, request: web.Request) -> web.WebSocketResponse:
        """Serve a page with frames and figures until it goes away."""
        if not is_own_page(request):
            raise web.HTTPForbidden(
                text="403: not for pages of other sites; a proxy must pass on Host, or say it in X-Forwarded-Host\n"
            )
        hub, limits = self._hub, self._hub.limits
        if len(hub.sessions) >= limits.clients:
            hub.met.add("PAGES", "too many pages look, one more was refused")
            raise _busy("too many pages look already")
        # A JPEG does not become smaller, so nothing is compressed.
        socket = web.WebSocketResponse(
            heartbeat=limits.heartbeat_s, max_msg_size=LARGEST_MESSAGE, compress=False, timeout=GOODBYE_S
        )
        session = Session(socket, hub)
        with hub.joined(session):
            await socket.prepare(request)
            await session.run()
        if socket.close_code == WSCloseCode.ABNORMAL_CLOSURE and request.transport is not None:
            # It has vanished, so what is in its buffer will never be read; closing would wait for that.
            request.transport.abort()
        return socket

    async def snapshot(self, request: web.Request) -> web.Response:
        """Answer with a view in the frame's own size, of the newest frame or of the one that a page has paused at."""
        setting, form = _snapshot_request(request.query, self._hub.limits)
        update = self._frame(setting.source, request.query.get("client"))
        if self._snapshots >= _MOST_SNAPSHOTS:
            raise _busy("too many snapshots are being made")
        self._snapshots += 1
        try:
            body = await asyncio.get_running_loop().run_in_executor(
                self._hub.snapshots, lambda: encode(draw_view(update, setting, self._hub.model.contract.palette), form)
            )
        except MediaError as error:
            raise web.HTTPBadRequest(text=f"400: {error}\n") from error
        finally:
            self._snapshots -= 1
        name = f"{_plain_name(update.source)}-{update.index:06d}-{setting.view}.{'jpg' if form == 'jpeg' else form}"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return web.Response(body=body, content_type=f"image/{form}", headers=headers)

    async def metrics(self, request: web.Request) -> web.Response:
        """Answer with all metrics."""
        text = metrics_text(
            self._hub.store,
            clients=len(self._hub.sessions),
            drawn=self._hub.renderer.count,
            met=self._hub.met.counts,
        )
        return web.Response(body=text.encode("utf-8", "replace"), headers={"Content-Type": CONTENT_TYPE})

    async def health(self, request: web.Request) -> web.Response:
        """Answer 200 if a frame came within ``fresh_s`` seconds, else 503; the sources' names only to who may look."""
        sources = self._hub.store.sources()
        healthy = any(each.idle_s <= self._hub.limits.fresh_s for each in sources)
        answer: dict[str, Any] = {"status": "ok" if healthy else "no new frames"}
        if self._access.admits(request):
            answer["sources"] = {
                each.name: {"frames": each.frames, "seconds_since_last_frame": round(each.idle_s, 3)}
                for each in sources
            }
        return web.json_response(answer, status=200 if healthy else 503)

    def _frame(self, source: str, client: str | None) -> ViewerUpdate:
        if client is not None:
            held = self._hub.held.get(client)
            if held is None:
                raise web.HTTPGone(text="410: this frame is not kept any more\n")
            return held
        newest = self._hub.store.newest()
        update = newest.get(source) or next(iter(newest.values()), None)
        if update is None:
            raise _busy("there is no frame yet")
        return update


def _snapshot_request(query: Mapping[str, str], limits: Limits) -> tuple[ViewSetting, PictureFormat]:
    """Read ``source``, ``view``, ``opacity``, ``hidden`` (numbers with commas) and ``format`` (png or jpeg)."""
    data: dict[str, Any] = {name: query[name] for name in ("source", "view") if name in query}
    form = query.get("format", "png")
    try:
        if "opacity" in query:
            data["opacity"] = int(query["opacity"])
        if query.get("hidden"):
            data["hidden"] = [int(text) for text in query["hidden"].split(",")]
        if form not in get_args(PictureFormat):
            raise UsageError(f"expected a format of {', '.join(get_args(PictureFormat))}")
        setting = setting_from(data, limits)
    except ValueError as error:  # as UsageError is, too
        raise web.HTTPBadRequest(text=f"400: {error}\n") from error
    return replace(setting, width=0), form  # type: ignore[return-value]


def _busy(why: str) -> web.HTTPServiceUnavailable:
    return web.HTTPServiceUnavailable(text=f"503: {why}\n", headers={"Retry-After": "5"})


def _plain_name(source: str) -> str:
    """Return the source's name as part of a file's name on any system."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", source).strip("-.")[:80] or "frame"
