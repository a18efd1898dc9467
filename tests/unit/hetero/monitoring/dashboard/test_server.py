from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer

from hetero.monitoring.dashboard.address import is_loopback
from hetero.monitoring.dashboard.server import PAGE, Dashboard
from tests.architecture.tree import ROOT
from tests.patience import WAIT_S
from tests.unit.hetero.monitoring.dashboard.runs import SyntheticRun

Client = TestClient[Any, Any]


@asynccontextmanager
async def _serving(folder: Path, port: int | None = None, local_only: bool = True) -> AsyncIterator[Client]:
    application = Dashboard(folder, poll_s=0.05).application(local_only=local_only)
    async with TestClient(TestServer(application, port=port)) as client:
        yield client


def _run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), WAIT_S))


async def _next(stream: ClientResponse, wanted: str) -> Any:
    """The content of the stream's next event of a kind."""
    kind = ""
    async for line in stream.content:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name == "event":
            kind = value
        elif name == "data" and kind == wanted:
            return json.loads(value)
    raise AssertionError(f"the stream ended without {wanted}")


def test_the_page_and_all_that_it_names_is_served(tmp_path: Path) -> None:
    async def test() -> None:
        async with _serving(tmp_path) as client:
            page = await (await client.get("/")).text()
            named = re.findall(r'(?:href|src)="([^"]+)"', page)
            modules = [asset.name for asset in PAGE.iterdir() if asset.name.endswith(".js")]
            assert len(named) >= 5
            for name in {*named, *modules}:
                answer = await client.get(f"/{name}")
                assert answer.status == 200, name
                assert answer.content_type in ("text/css", "text/javascript", "image/svg+xml")

    _run(test)


@pytest.mark.parametrize("path", ["/", "/app.js", "/stream", "/none.js", "/%2e%2e/options.py"])
def test_every_answer_forbids_what_the_page_does_not_need(tmp_path: Path, path: str) -> None:
    async def test() -> None:
        async with _serving(tmp_path) as client:
            answer = await client.get(path)
            policy = answer.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
            assert "unsafe" not in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            answer.close()

    _run(test)


@pytest.mark.parametrize("path", ["/none.js", "/__init__.py", "/%2e%2e/options.py", "/../options.py", "/page/app.js"])
def test_nothing_but_the_page_is_served(tmp_path: Path, path: str) -> None:
    async def test() -> None:
        async with _serving(tmp_path) as client:
            assert (await client.get(path)).status == 404

    _run(test)


def test_the_page_names_no_other_host() -> None:
    for asset in PAGE.iterdir():
        urls = set(re.findall(r"(?:https?:)?//[a-z][\w.]*\.\w+", asset.read_text()))
        assert urls <= {"http://www.w3.org"}, asset.name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|style=", asset.read_text()
        )


def test_the_stream_follows_the_run(tmp_path: Path) -> None:
    async def test() -> None:
        run = SyntheticRun(tmp_path / "run")
        run.advance(2)
        async with _serving(run.folder) as client, client.get("/stream") as stream:
            assert stream.content_type == "text/event-stream"
            assert (await _next(stream, "run"))["name"] == "quickstart"
            assert await _next(stream, "record") == run.records[1]
            run.advance()
            assert await _next(stream, "record") == run.records[2]
            run.finish()
            assert (await _next(stream, "run"))["state"] == "finished"

    _run(test)


def test_what_cannot_be_read_ends_no_server(tmp_path: Path) -> None:
    async def test() -> None:
        run = SyntheticRun(tmp_path / "run")
        run.advance()
        async with _serving(run.folder) as client, client.get("/stream") as stream:
            assert await _next(stream, "record") == run.records[0]
            (run.folder / "plan.json").write_text('{"pipelines": [{"share": "?"}]}')
            await asyncio.sleep(0.2)
            (run.folder / "plan.json").write_text('{"schedule": "gpipe", "pipelines": []}')
            run.advance()
            assert await _next(stream, "record") == run.records[1]
        run.close()

    _run(test)


def test_open_pages_do_not_hold_up_the_end(tmp_path: Path) -> None:
    async def test() -> None:
        async with _serving(tmp_path) as client:
            stream = await client.get("/stream")
            await _next(stream, "run")
            await client.server.close()
            assert await stream.content.read() is not None

    _run(test)


@pytest.mark.slow
def test_a_ledger_that_is_judged_holds_up_neither_the_page_nor_the_end(tmp_path: Path) -> None:
    """Not even that of the process."""
    run = SyntheticRun(tmp_path / "run")
    run.advance()
    run.close()
    script = f"""
import asyncio, time
from pathlib import Path
from aiohttp.test_utils import TestClient, TestServer
from hetero.monitoring.dashboard.server import Dashboard

async def test():
    application = Dashboard(Path({str(run.folder)!r}), lambda follower: time.sleep(1e6)).application(local_only=True)
    async with TestClient(TestServer(application)) as client, client.get("/stream") as stream:
        async for line in stream.content:
            if line == b"event: record\\n":
                break
        print("shown")

asyncio.run(test())
"""
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("shown\n", "", 0)


def test_only_who_calls_this_host_by_its_own_name_is_answered(tmp_path: Path) -> None:
    async def test() -> None:
        async with _serving(tmp_path) as client:
            assert (await client.get("/stream", headers={"Host": "elsewhere.example"})).status == 403
            assert (await client.get("/", headers={"Host": "localhost:8080"})).status == 200
        async with _serving(tmp_path, local_only=False) as client:
            assert (await client.get("/", headers={"Host": "elsewhere.example"})).status == 200

    _run(test)


@pytest.mark.parametrize(
    ("host", "is_own"),
    [("localhost", True), ("127.0.0.1", True), ("::1", True), ("a.localhost", True), ("10.0.0.1", False), ("", False),
     ("localhost.example", False)],
)  # fmt: skip
def test_names_of_this_host(host: str, is_own: bool) -> None:
    assert is_loopback(host) is is_own
