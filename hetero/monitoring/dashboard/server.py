"""The page, and a stream of what changes on it, over HTTP. It serves this package's page and the run's figures.

`stream` sends server-sent events, one kind per section of the page; a browser comes back by itself when the server
does. Every client is sent the newest state only, however slowly it reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.resources import files
from pathlib import Path
from socket import socket

from aiohttp import web

from hetero.monitoring.dashboard.address import is_loopback
from hetero.monitoring.dashboard.live_ledger import Judge
from hetero.monitoring.dashboard.sections import OpenPage, RunView

POLL_S = 0.5
HEARTBEAT_S = 15.0
GOODBYE_S = 1.0
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
PAGE = files("hetero.monitoring") / "page"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}

RequestHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]
log = logging.getLogger(__name__)


class Dashboard:
    """Serves one run. Reads its directory in a thread, twice a second."""

    def __init__(self, run_dir: Path, judge: Judge | None = None, poll_s: float = POLL_S) -> None:
        self._view = RunView(run_dir, judge)
        self._poll_s = poll_s
        self._changed = asyncio.Event()
        self._closing = False

    def application(self, *, local_only: bool) -> web.Application:
        """`local_only` answers only those who call this host by a name of its own: no foreign page can reach it by a
        name that it points here."""
        application = web.Application(middlewares=[_local_hosts] if local_only else [])
        application.router.add_get("/stream", self._stream)
        application.router.add_get("/{name:[a-z.]*}", _asset)
        application.on_response_prepare.append(_protect)
        application.cleanup_ctx.append(self._watching)
        application.on_shutdown.append(self._close)
        return application

    async def _watching(self, _: web.Application) -> AsyncIterator[None]:
        watch = asyncio.create_task(self._watch())
        yield
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch
        await asyncio.to_thread(self._view.close)

    async def _watch(self) -> None:
        while True:
            try:
                if await asyncio.to_thread(self._view.refresh):
                    self._wake()
            except Exception:
                log.exception("the run directory cannot be read")  # what was read before stays on the page
            await asyncio.sleep(self._poll_s)

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _close(self, _: web.Application) -> None:
        self._closing = True
        self._wake()

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        await response.prepare(request)
        await response.write(b"retry: 1000\n\n")
        page = OpenPage(self._view)
        with contextlib.suppress(ConnectionError):  # the page was closed
            while not self._closing:
                changed = self._changed
                for name, text in page.news():
                    await response.write(f"event: {name}\ndata: {text}\n\n".encode())
                try:
                    await asyncio.wait_for(changed.wait(), HEARTBEAT_S)
                except asyncio.TimeoutError:
                    await response.write(b": still here\n\n")
        return response


async def serve(run_dir: Path, listener: socket, stop: asyncio.Event, judge: Judge, *, local_only: bool) -> None:
    """Serve on a bound socket until `stop` is set. Closes the socket."""
    application = Dashboard(run_dir, judge).application(local_only=local_only)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=GOODBYE_S)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        await stop.wait()
    finally:
        await runner.cleanup()


async def _asset(request: web.Request) -> web.Response:
    name = request.match_info["name"] or "index.html"
    asset = PAGE / name
    kind = KINDS.get(Path(name).suffix)
    if kind is None or not asset.is_file():
        raise web.HTTPNotFound
    return web.Response(body=asset.read_bytes(), content_type=kind, charset="utf-8")


async def _protect(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


@web.middleware
async def _local_hosts(request: web.Request, handler: RequestHandler) -> web.StreamResponse:
    if not is_loopback(request.url.host or ""):
        raise web.HTTPForbidden(text="this dashboard answers to localhost alone; start it with --host to share it")
    return await handler(request)
