"""Connections until both sides have proved themselves: those that this endpoint dials, and those that come."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Container, Mapping, Sequence

from bridge.endpoint.peer import Peer
from bridge.errors import TransportError
from bridge.system.awake import AwakeClock
from bridge.system.loop import Loop
from bridge.transports.transport import Connection, FrameSink, Transport, load_transport, scheme_of
from bridge.trust.credentials import Admission
from bridge.trust.handshake import Handshakes
from bridge.trust.hello import Hello
from bridge.trust.identity import Identity
from bridge.trust.seal import Seal
from bridge.words.frame import Header, wire_error


class Dialler:
    """Owns transports, and who this endpoint is.

    Of two endpoints the one with the smaller name dials; the other, if it needs the link and is not dialled for a
    heartbeat, knocks: it dials too, but only to make itself known, whereupon the first dials. So a link has one maker,
    and two dials never meet half-way.

    sink      who takes the frames of all connections, and is to pass on here those of connections that are nobody's yet
    peers     by name, those that we were told of
    welcome   called with a connection whose peer has proved itself, the seal of its frames and the peer's HELLO
    knocked   called with a peer that is to be dialled
    instance  of this process
    """

    def __init__(
        self,
        loop: Loop,
        sink: FrameSink,
        clock: AwakeClock,
        peers: Mapping[str, Peer],
        welcome: Callable[[Peer, Connection, Seal, Hello], object],
        knocked: Callable[[Peer], object],
    ) -> None:
        self.identity, self.admission = Identity(""), Admission("")
        self.instance = secrets.token_hex(16)
        self._loop, self._sink, self._peers, self._welcome, self._knocked = loop, sink, peers, welcome, knocked
        self._transports: dict[str, Transport] = {}
        self._dialled: dict[Connection, tuple[Peer, int]] = {}  # for which of its streams; until they are lost
        self._handshakes = Handshakes(lambda name: peers[name].secret, self._answer, self._on_proof, clock)

    def listen(self, endpoint: str, host: str, schemes: Sequence[str]) -> dict[str, str]:
        """Takes the name `endpoint`, and binds a port for each scheme. Gives the URIs."""
        self.identity, self.admission = Identity(endpoint), Admission(endpoint)
        admits = self.admission.admits
        return {scheme: self._transport(scheme).listen(host, self._sink, admits).uri for scheme in schemes}

    def connect(self, peer: Peer) -> None:
        """Dials for as many streams as the link is to have, if that is ours to do. The other side waits for the first,
        and knows of more when they come."""
        for index in range(peer.link.width if self.identity.name < peer.name else 0):
            peer.link.stream(index)
            self.dial(peer, index)

    def dial(self, peer: Peer, index: int) -> None:
        """For one stream, if that needs a connection and none is being made."""
        wanted = peer.needed and any(not stream.connection for stream in peer.link.streams[index : index + 1])
        if peer.uri is None or not wanted or (peer, index) in self._dialled.values():
            return
        credentials = self.admission.credentials(peer.name)
        try:
            connection = self._transport(scheme_of(peer.uri)).connect(peer.uri, self._sink, credentials)
        except TransportError as error:
            self.redial(peer, index, str(error))
            return
        self._dialled[connection] = peer, index
        self._handshakes.dial(connection, peer.name, self._hello(peer, index))

    def redial(self, peer: Peer, index: int, cause: str) -> None:
        """Dials again after a pause; `cause` is why the last connection was none."""
        for stream in peer.link.streams[index : index + 1]:
            if not stream.connections:
                stream.cause = cause
        self._loop.call_at(time.monotonic() + peer.next_pause_s(), lambda: self.dial(peer, index))

    def on_frame(self, connection: Connection, header: Header, head: memoryview, body: memoryview) -> None:
        """A frame of a connection that is nobody's yet. Raises WireError if the connection is to be cut."""
        self._handshakes.on_frame(connection, header, head, body)

    def has_dialled(self, connection: Connection) -> bool:
        return connection in self._dialled

    def forget(self, connection: Connection) -> tuple[Peer, int] | None:
        """It is over. Gives the peer and the stream for which it was dialled, None if it came."""
        self._handshakes.forget(connection)
        return self._dialled.pop(connection, None)

    def half_open(self, peer: Peer) -> list[Connection]:
        """Those that were dialled, and whose peer has not answered."""
        return [one for one, (other, _) in self._dialled.items() if other is peer and one in self._handshakes]

    def late(self, established: Container[Connection], seconds: float) -> list[Connection]:
        """Those that are nobody's yet after so long. Of who has said nothing at all the time is taken from now on."""
        for connection in {one for transport in self._transports.values() for one in transport.connections}:
            if connection not in established:
                self._handshakes.notice(connection)
        return self._handshakes.waiting_for(seconds)

    def close(self) -> None:
        """Closes all transports, and with them all connections."""
        for transport in self._transports.values():
            transport.close()

    def _on_proof(self, connection: Connection, seal: Seal, hello: Hello) -> None:
        peer = self._caller(hello)
        if self.has_dialled(connection) == (self.identity.name < hello.endpoint):
            self._welcome(peer, connection, seal, hello)
        else:  # a knock
            self.forget(connection)
            connection.close()
            self._knocked(peer)

    def _caller(self, hello: Hello) -> Peer:
        """Who says so. Raises WireError if that is nobody to talk to."""
        peer = self._peers.get(hello.endpoint)
        if peer is None:
            raise wire_error("hello.endpoint", hello.endpoint, "it is no peer of this endpoint, or not yet")
        if hello.instance in peer.lost:
            raise wire_error("hello.instance", hello.endpoint, "it was given up before")
        return peer

    def _answer(self, hello: Hello) -> Hello:
        """Our HELLO to a peer's. Raises WireError if that is none of ours."""
        peer = self._caller(hello)
        if hello.sealed != peer.sealed:
            raise wire_error("hello.sealed", hello.sealed, f"this side was told {peer.sealed}")
        return self._hello(peer, hello.stream)

    def _hello(self, peer: Peer, index: int) -> Hello:
        known = peer.link.streams[index : index + 1]  # made only for whoever proves itself
        return Hello(
            endpoint=self.identity.name,
            instance=self.instance,
            stream=index,
            resumes=peer.link.instance,
            expects=known[0].expected if known else 0,
            sealed=peer.sealed,
        )

    def _transport(self, scheme: str) -> Transport:
        if scheme not in self._transports:
            self._transports[scheme] = load_transport(scheme)(self._loop)
        return self._transports[scheme]
