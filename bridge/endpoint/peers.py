"""An endpoint's links: who is dialled, who dials, which peer is alive, and which way to a rank."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bridge.endpoint.probe import Probe
from bridge.errors import BridgeError, PeerLost, TransportError, WireError
from bridge.link.link import Link
from bridge.link.loopback import Loopback
from bridge.link.pace import LinkPace
from bridge.link.stream import Stream
from bridge.rank import RankId
from bridge.system.awake import AwakeClock
from bridge.system.loop import Loop
from bridge.transports.transport import Connection, Transport, load_transport, scheme_of
from bridge.trust.credentials import Admission
from bridge.trust.handshake import Handshakes
from bridge.trust.hello import Hello
from bridge.trust.identity import Identity
from bridge.trust.seal import Checked, Seal, Unchecked
from bridge.words.endpoint import MOST_STREAMS, Failed, Introduce, Introduced, LostPeer, PeerSpec, TurnedAway
from bridge.words.error import ErrorReport
from bridge.words.frame import HEADER_BYTES, MOST_TEXT_BYTES, FrameKind, Header, read_text, text_frame, wire_error
from bridge.words.word import Word

BEATS = 5  # pings within the patience
_SILENT_BEATS = 2  # a connection that says nothing for so long is replaced
_REFUSAL_S = 1.0  # strangers are told of so often at most, lest they flood the log
_REDIAL_S = (0.01, 1.0)  # pauses between attempts double from the first to the second


class Frames(Protocol):
    """Who takes the frames of channels."""

    def place_for(self, header: Header) -> memoryview | None: ...
    def on_frame(self, link: Link, header: Header, payload: memoryview) -> None: ...
    def link_lost(self, link: Link, error: PeerLost) -> None: ...


@dataclass
class _Peer:
    """What `introduce` has said of an endpoint, and how dialling it goes.

    key      the public half of its key pair
    secret   what we share with it, and nobody else
    needed  the link is to be connected, and to stay so: a rank here or there wants it
    lost     instances of the endpoint that are not talked to any more
    """

    link: Link
    uri: str | None
    key: str
    secret: bytes
    sealed: bool
    needed: bool = False
    pause_s: float = _REDIAL_S[0]
    lost: set[str] = field(default_factory=set)


class Peers:
    """The FrameSink of all connections. Reports: Introduced, LinkProbed, LostPeer, TurnedAway, Failed.

    A link is connected when it is first needed. Of two endpoints the one with the smaller id dials; the other, if it
    needs the link and is not dialled for a heartbeat, knocks: it dials too, but only to make itself known, whereupon
    the first dials. So a link has one maker, and two dials never meet half-way.

    patience_s  a peer that is silent for so long is lost, and so is one that is not reached. Until then a connection
                that breaks is made anew, by the side that dialled it, and nothing is lost or repeated.
    """

    def __init__(self, loop: Loop, frames: Frames, report: Callable[[Word], None], patience_s: float) -> None:
        self.identity, self._admission = Identity(""), Admission("")
        self.instance = secrets.token_hex(16)
        self._loop, self._frames, self._report, self._patience_s = loop, frames, report, patience_s
        self._clock = AwakeClock(longest_s=patience_s / BEATS)
        self._transports: dict[str, Transport] = {}
        self._peers: dict[str, _Peer] = {}
        self._home: Link | None = None
        self._established: dict[Connection, tuple[Link, Stream]] = {}
        self._dialled: dict[Connection, tuple[_Peer, int]] = {}
        self._handshakes = Handshakes(lambda name: self._peers[name].secret, self._answer, self._welcome, self._clock)
        self._routes: dict[RankId, str] = {}
        self._next_refusal = 0.0
        self._refusals = 0

    @property
    def id(self) -> str:
        return self.identity.name

    def listen(self, endpoint: str, host: str, schemes: Sequence[str]) -> dict[str, str]:
        """Takes the name `endpoint`, binds a port for each scheme, and is its own first peer. Gives the URIs."""
        self.identity, self._admission = Identity(endpoint), Admission(endpoint)
        admits = self._admission.admits
        uris = {scheme: self._transport(scheme).listen(host, self, admits).uri for scheme in schemes}
        self._come_home()
        self._beat()
        return uris

    def introduce(self, order: Introduce) -> None:
        """Tells of peers, and which ranks are behind which. None is dialled before it is needed."""
        self._routes |= {_rank(name): endpoint for name, endpoint in order.routes.items()}
        for name, spec in order.peers.items():
            self._meet(name, spec)
        self._report(Introduced())

    def link_to(self, rank: RankId, *, local: bool) -> Link | None:
        """The way to a rank, which is needed from now on; `local` ranks are behind this very endpoint."""
        if local:
            return self._home
        peer = self._peers.get(self._routes.get(rank, ""))
        return self._need(peer) if peer else None

    def stats(self) -> dict[str, dict[str, int]]:
        """Of each link, the one to ourselves and those that nobody has needed included."""
        links = [*([self._home] if self._home else []), *(peer.link for peer in self._peers.values())]
        return {link.peer: link.stats() for link in links}

    def probe(self, name: str, nbytes: int) -> None:
        """Sends a peer bulk to throw away. Reports LinkProbed; the link should be idle."""
        if name not in self._peers:
            raise BridgeError("peer", name, "this endpoint was not told of it", "introduce it first")
        link = self._need(self._peers[name])
        Probe(link, self._loop, nbytes, self._report)

    def close(self) -> None:
        """Says goodbye, so that no peer takes us for lost."""
        for link, stream in self._established.values():
            if link is not self._home:
                stream.send_control(Header(FrameKind.STOP))
        for transport in self._transports.values():
            transport.close()

    # FrameSink

    def on_frame(self, connection: Connection, head: memoryview, body: memoryview) -> None:
        """See FrameSink.on_frame."""
        try:
            header = Header.decode(head)
            if header.length > MOST_TEXT_BYTES and not header.kind.is_bulk:
                raise wire_error("length", header.length, f"a text has at most {MOST_TEXT_BYTES} bytes")
            if connection in self._established:
                self._on_known(*self._established[connection], header, head, body)
            else:
                self._handshakes.on_frame(connection, header, head, body)
        except WireError as error:
            self._cut(connection, error)

    def on_lost(self, connection: Connection, error: BridgeError) -> None:
        """See FrameSink.on_lost."""
        self._drop(connection, str(error.rule or error.value), damaged=isinstance(error, WireError))

    def on_stranger(self, address: str, cause: str) -> None:
        """See FrameSink.on_stranger."""
        if self._peers:  # before `introduce`, a peer is only early
            self._refused(address, cause)

    # frames

    def _on_known(self, link: Link, stream: Stream, header: Header, head: memoryview, body: memoryview) -> None:
        assert stream.seal
        fresh = stream.is_next(header)
        if header.kind.is_bulk:
            place = self._frames.place_for(header) if fresh else None
        else:
            place = memoryview(bytearray(min(header.length, len(body))))
        stream.seal.open(header, head, body, place)
        stream.heard()
        stream.on_seen(header.seen)
        if fresh:
            stream.took(header)
            link.bytes_received += HEADER_BYTES + header.length
            self._dispatch(link, stream, header, body if place is None else place)
        link.pump()
        stream.acknowledge()

    def _dispatch(self, link: Link, stream: Stream, header: Header, payload: memoryview) -> None:
        match header.kind:
            case FrameKind.PING:
                link.on_ping(stream, header)
            case FrameKind.PONG:
                link.on_pong(header)
            case FrameKind.SEEN | FrameKind.PROBE:
                pass
            case FrameKind.STOP:
                self._lose(link, "it has stopped", tell=False)
            case FrameKind.CUT if stream.connection:
                self._hang_up(stream.connection, read_text(payload))
            case kind if kind.numbered:
                self._frames.on_frame(link, header, payload)
            case kind:
                raise wire_error("kind", kind.name, "it has no place after READY")

    # connections

    def _need(self, peer: _Peer) -> Link:
        """Has a link connected, from now on and until its peer is lost. Gives the link."""
        link = peer.link
        if not (peer.needed or link.is_lost):
            peer.needed = True
            for stream in link.streams:
                if not stream.connection:
                    stream.heard()
            self._connect(peer)
        return link

    def _connect(self, peer: _Peer) -> None:
        """Dials for as many streams as the link is to have, if that is ours to do. The other side waits for the first,
        and knows of more when they come."""
        for index in range(peer.link.width if self.id < peer.link.peer else 0):
            peer.link.stream(index)
            self._dial(peer, index)

    def _caller(self, hello: Hello) -> _Peer:
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

    def _hello(self, peer: _Peer, stream: int) -> Hello:
        known = peer.link.streams[stream : stream + 1]  # made only for whoever proves itself
        return Hello(
            endpoint=self.id,
            instance=self.instance,
            stream=stream,
            resumes=peer.link.instance,
            expects=known[0].expected if known else 0,
            sealed=peer.sealed,
        )

    def _welcome(self, connection: Connection, seal: Seal, hello: Hello) -> None:
        peer = self._caller(hello)
        if (connection in self._dialled) == (self.id < hello.endpoint):
            self._take_up(peer, connection, seal, hello)
        else:  # a knock
            self._release(connection)
            self._need(peer)

    def _take_up(self, peer: _Peer, connection: Connection, seal: Seal, hello: Hello) -> None:
        link = peer.link
        if link.instance not in ("", hello.instance):
            self._lose(link, "it has started anew", tell=True)
        stream = link.stream(hello.stream)
        if stream.connection:
            self._release(stream.connection)
        peer.pause_s = _REDIAL_S[0]
        self._established[connection] = link, stream
        link.attach(stream, connection, seal, hello.expects if hello.resumes == self.instance else 0)
        link.instance, link.is_lost = hello.instance, False
        self._need(peer)
        stream.ping()
        link.pump()

    def _dial(self, peer: _Peer, stream: int) -> None:
        wanted = peer.needed and any(not known.connection for known in peer.link.streams[stream : stream + 1])
        if peer.uri is None or not wanted or (peer, stream) in self._dialled.values():
            return
        credentials = self._admission.credentials(peer.link.peer)
        try:
            connection = self._transport(scheme_of(peer.uri)).connect(peer.uri, self, credentials)
        except TransportError as error:
            self._redial(peer, stream, str(error))
            return
        self._dialled[connection] = peer, stream
        self._handshakes.dial(connection, peer.link.peer, self._hello(peer, stream))

    def _cut(self, connection: Connection, error: WireError) -> None:
        """Ends a connection on which something is wrong; the side that dialled it will try again."""
        known = self._established.get(connection)
        frame = text_frame(FrameKind.CUT, str(error))
        if known:
            known[1].send_control(*frame)
        else:
            connection.send_frame(*Checked().apply(*frame))
            if self._peers and connection not in self._dialled:  # before `introduce`, a peer is only early
                self._refused(connection.peer, str(error))
        connection.close()
        self._drop(connection, str(error), damaged=True)

    def _refused(self, stranger: str, cause: str) -> None:
        self._refusals += 1
        if time.monotonic() >= self._next_refusal:
            self._next_refusal = time.monotonic() + _REFUSAL_S
            self._report(TurnedAway(stranger, cause, self._refusals))

    def _drop(self, connection: Connection, cause: str, *, damaged: bool) -> None:
        """A connection is gone."""
        self._handshakes.forget(connection)
        known = self._established.pop(connection, None)
        dialled = self._dialled.pop(connection, None)
        if known and known[1].connection is connection and not known[1].detach(cause, damaged=damaged):
            self._lose(known[0], cause, tell=True)
        elif dialled:
            self._redial(*dialled, cause)

    def _redial(self, peer: _Peer, stream: int, cause: str) -> None:
        for known in peer.link.streams[stream : stream + 1]:
            if not known.connections:
                known.cause = cause
        self._loop.call_at(time.monotonic() + peer.pause_s, lambda: self._dial(peer, stream))
        peer.pause_s = min(2 * peer.pause_s, _REDIAL_S[1])

    def _release(self, connection: Connection) -> None:
        """Closes a connection that is not needed any more."""
        self._handshakes.forget(connection)
        self._established.pop(connection, None)
        self._dialled.pop(connection, None)
        connection.close()

    def _lose(self, link: Link, cause: str, *, tell: bool) -> None:
        peer = self._peers[link.peer]
        peer.lost.add(link.instance)
        peer.needed = False
        half_open = [one for one, (other, _) in self._dialled.items() if other is peer and one in self._handshakes]
        for connection in (*half_open, *(stream.connection for stream in link.streams)):
            if connection:
                self._release(connection)
        link.lose()
        self._frames.link_lost(link, PeerLost("peer", link.peer, cause, "look for the error of that host"))
        if tell:
            self._report(LostPeer(link.peer, cause))

    def _meet(self, name: str, spec: PeerSpec) -> None:
        if not 1 <= spec.streams <= MOST_STREAMS:
            raise BridgeError("streams", spec.streams, f"a link has 1 to {MOST_STREAMS}", "give it so many streams")
        peer = self._peers.get(name)
        secret = peer.secret if peer and peer.key == spec.key else self.identity.share(name, spec.key)
        if peer is None:
            link = Link(name, self._loop, self._clock)
            peer = self._peers[name] = _Peer(link, spec.uri, spec.key, secret, spec.sealed)
        self._admission.meet(name, secret)
        peer.uri, peer.key, peer.secret, peer.sealed = spec.uri, spec.key, secret, spec.sealed
        peer.link.width, peer.link.is_lost = spec.streams, False
        peer.link.pace = LinkPace(spec.pace.bytes_per_s, spec.pace.delay_s) if spec.pace else None
        if peer.needed:
            self._connect(peer)

    def _come_home(self) -> None:
        self._home = home = Link(self.id, self._loop, self._clock)
        connection = Loopback(self._loop, self)
        self._established[connection] = home, home.streams[0]
        home.attach(home.streams[0], connection, Unchecked(), 0)

    def _transport(self, scheme: str) -> Transport:
        if scheme not in self._transports:
            self._transports[scheme] = load_transport(scheme)(self._loop)
        return self._transports[scheme]

    # heartbeat

    def _beat(self) -> None:
        period = self._patience_s / BEATS
        for connection in {one for transport in self._transports.values() for one in transport.connections}:
            if connection not in self._established:
                self._handshakes.notice(connection)
        for connection in self._handshakes.waiting_for(_SILENT_BEATS * period):
            self._cut(connection, wire_error("connection", connection.peer, "no proof of itself in time"))
        needed = [(peer, stream) for peer in self._peers.values() if peer.needed for stream in peer.link.streams]
        late = {peer.link.peer: stream for peer, stream in needed if stream.silence_s > self._patience_s}
        self._give_up({name: stream.cause for name, stream in late.items() if not stream.connections})
        for peer, stream in needed:
            if not peer.link.is_lost:
                self._look_after(peer, stream, stream.silence_s, period)
        for _, stream in self._established.values():
            stream.ping()
        self._loop.call_at(time.monotonic() + period, self._beat)

    def _look_after(self, peer: _Peer, stream: Stream, silence_s: float, period: float) -> None:
        if silence_s > self._patience_s:
            broken = "" if stream.connection else f", and not connected again: {stream.cause}"
            self._lose(peer.link, f"silent for {self._patience_s:g} s{broken}", tell=True)
        elif not stream.connections and silence_s > period:
            self._dial(peer, stream.index)
        elif stream.connection and silence_s > (_SILENT_BEATS + 0.5) * period:
            self._hang_up(stream.connection, "it is silent")

    def _hang_up(self, connection: Connection, cause: str) -> None:
        """Ends a connection that is of no use any more, but not for damage that we have seen."""
        connection.close()
        self._drop(connection, cause, damaged=False)

    def _give_up(self, unreached: Mapping[str, str]) -> None:
        """These peers were needed, and could not be connected; each with the cause."""
        if not unreached:
            return
        rule = f"not connected within {self._patience_s:g} s: "
        for name, cause in unreached.items():
            self._lose(self._peers[name].link, rule + cause, tell=False)
        names, causes = sorted(unreached), sorted(set(unreached.values()))
        remedy = "check addresses, routes and firewalls"
        error = TransportError("peers", ", ".join(names), rule + "; ".join(causes), remedy)
        self._report(Failed(ErrorReport.of(error)))


def _rank(name: str) -> RankId:
    try:
        return RankId.parse(name)
    except ValueError as error:
        raise BridgeError("routes", name, str(error), "please report it") from error
