"""An endpoint's links: who is dialled, who dials, which peer is alive, and which way to a rank."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from bridge.errors import BridgeError, PeerLost, TransportError, to_dict
from bridge.exchange import text_buffer
from bridge.link import Link
from bridge.loop import Loop
from bridge.pace import Pace
from bridge.rank import RankId
from bridge.transport import Connection, Transport, load_transport, scheme_of
from bridge.wire import Header, Kind, read_text, text_frame

BEATS = 5  # pings within the patience
_LOOPBACK = "inproc"  # to ourselves: two ranks of one host
_OUR_OWN = (Kind.HELLO, Kind.BYE, Kind.PING, Kind.PONG)


class Frames(Protocol):
    """Who takes the frames of channels."""

    def buffer_for(self, link: Link, header: Header) -> memoryview | None: ...
    def on_frame(self, link: Link, header: Header, payload: memoryview) -> None: ...
    def link_lost(self, link: Link, error: PeerLost) -> None: ...


class Network:
    """The Sink of all connections. `patience_s`: a peer that is silent for so long is lost, and so is one that does not
    answer a dial. Reports: connected, peer_lost, failed."""

    def __init__(self, loop: Loop, frames: Frames, report: Callable[[dict[str, Any]], None], patience_s: float) -> None:
        self.id = ""
        self._loop, self._frames, self._report, self._patience_s = loop, frames, report, patience_s
        self._transports: dict[str, Transport] = {}
        self._links: dict[str, Link] = {}
        self._by_connection: dict[Connection, Link] = {}
        self._dialled: set[Connection] = set()
        self._routes: dict[RankId, str] = {}
        self._requests: list[set[str]] = []
        self._next_beat = 0.0

    def listen(self, endpoint: str, host: str, schemes: list[str]) -> dict[str, str]:
        """Takes the name `endpoint`, binds a port for each scheme, and connects to itself. Gives the URIs."""
        self.id = endpoint
        uris = {scheme: self._transport(scheme).listen(host, self).uri for scheme in schemes}
        self._dial(self._link(endpoint), self._transport(_LOOPBACK).listen(host, self).uri)
        self._beat()
        return uris

    def connect(self, peers: Mapping[str, Mapping[str, Any]], routes: Mapping[str, str]) -> None:
        """Of two endpoints the one with the smaller id dials. Reports `connected` when all `peers` have said HELLO."""
        self._routes |= {RankId.parse(rank): endpoint for rank, endpoint in routes.items()}
        waiting = set()
        for peer, facts in peers.items():
            link = self._link(peer)
            link.pace = Pace(**facts["pace"]) if facts.get("pace") else None
            if link.connection is None:
                waiting.add(peer)
                if self.id < peer:
                    self._dial(link, facts["uri"])
        self._requests.append(waiting)
        self._loop.call_at(time.monotonic() + self._patience_s, lambda: self._expire(waiting))
        self._settle()

    def link_to(self, rank: RankId, *, local: bool) -> Link | None:
        """The way to a rank; `local` ranks are behind this very endpoint."""
        endpoint = self.id if local else self._routes.get(rank)
        return None if endpoint is None else self._link(endpoint)

    def stats(self) -> dict[str, dict[str, int]]:
        """Of each link, the one to ourselves included."""
        return {peer: link.stats() for peer, link in self._links.items()}

    def close(self) -> None:
        """Says goodbye, so that no peer takes us for lost."""
        for link in self._links.values():
            if link.connection:
                link.connection.send(Header(Kind.BYE))
        for transport in self._transports.values():
            transport.close()

    # Sink

    def buffer_for(self, connection: Connection, header: Header) -> memoryview | None:
        link = self._by_connection.get(connection)
        if link is None and header.kind is not Kind.HELLO:
            connection.send(Header(Kind.BYE))  # of a connection that has been given up
            connection.close()
            return None
        if link:
            link.received(header)
        if header.channel == 0 and header.kind in _OUR_OWN:
            return text_buffer(header)
        return self._frames.buffer_for(link, header) if link else None

    def on_frame(self, connection: Connection, header: Header, payload: memoryview) -> None:
        link = self._by_connection.get(connection)
        match header.kind:
            case Kind.HELLO:
                self._on_hello(connection, read_text(header, payload))
            case Kind.PING if link:
                link.on_ping(header)
            case Kind.PONG if link:
                link.on_pong(header)
            case Kind.BYE if link and header.channel == 0:
                self._give_up(connection, "it has stopped", tell=False)
            case _ if link:
                self._frames.on_frame(link, header, payload)

    def on_lost(self, connection: Connection, error: BridgeError) -> None:
        self._give_up(connection, str(error.rule or error.value), tell=True)

    # connections

    def _transport(self, scheme: str) -> Transport:
        if scheme not in self._transports:
            self._transports[scheme] = load_transport(scheme)(self._loop)
        return self._transports[scheme]

    def _link(self, peer: str) -> Link:
        if peer not in self._links:
            self._links[peer] = Link(peer, self._loop)
        return self._links[peer]

    def _dial(self, link: Link, uri: str) -> None:
        connection = self._transport(scheme_of(uri)).connect(uri, self)
        self._by_connection[connection] = link
        self._dialled.add(connection)
        self._greet(connection)

    def _greet(self, connection: Connection) -> None:
        connection.send(*text_frame(Kind.HELLO, self.id))

    def _on_hello(self, connection: Connection, peer: str) -> None:
        link = self._by_connection.setdefault(connection, self._link(peer))
        if link.peer != peer:
            rule = f"{link.peer} was expected there, {peer} answered"
            self._give_up(connection, rule, tell=True)
            return
        if link.connection not in (None, connection) and peer != self.id:
            self._give_up(link.connection, "it has started anew", tell=True)
        if connection not in self._dialled:
            self._greet(connection)
        link.connection = connection
        link.heard = time.monotonic()
        link.ping()
        for waiting in self._requests:
            waiting.discard(peer)
        self._settle()

    def _give_up(self, connection: Connection, cause: str, *, tell: bool) -> None:
        connection.close()
        link = self._by_connection.pop(connection, None)
        self._dialled.discard(connection)
        if link is None:
            return
        if link.connection is not connection:
            self._abandon(link.peer)
            self._fail(TransportError("peer", link.peer, f"it could not be reached: {cause}", "look for its own error"))
            return
        link.connection = None
        self._frames.link_lost(link, PeerLost("peer", link.peer, cause, "look for the error of that host"))
        if tell:
            self._report({"report": "peer_lost", "peer": link.peer, "cause": cause})

    def _settle(self) -> None:
        done = [waiting for waiting in self._requests if not waiting]
        self._requests = [waiting for waiting in self._requests if waiting]
        for _ in done:
            self._report({"report": "connected"})

    def _abandon(self, peer: str) -> None:
        for waiting in self._requests:
            if peer in waiting:
                waiting.clear()
        self._requests = [waiting for waiting in self._requests if waiting]

    def _expire(self, waiting: set[str]) -> None:
        if waiting:
            rule = f"no word from it within {self._patience_s:g} s"
            self._fail(
                TransportError("peers", ", ".join(sorted(waiting)), rule, "check addresses, routes and firewalls")
            )

    def _fail(self, error: BridgeError) -> None:
        self._report({"report": "failed", "error": to_dict(error)})

    def _beat(self) -> None:
        now, period = time.monotonic(), self._patience_s / BEATS
        stalled = (
            self._next_beat and now > self._next_beat + period
        )  # we were stopped, so nobody's silence means a thing
        for link in self._links.values():
            if stalled:
                link.heard = now
            if link.connection and now - link.heard > self._patience_s:
                self._give_up(link.connection, f"silent for {self._patience_s:g} s", tell=True)
            link.ping()
        self._next_beat = now + period
        self._loop.call_at(self._next_beat, self._beat)
