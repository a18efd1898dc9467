"""An endpoint's peers: which of them is alive, which way leads to a rank, and whose a frame is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from bridge.endpoint.dialler import Dialler
from bridge.endpoint.peer import Peer
from bridge.endpoint.probe import Probe
from bridge.errors import BridgeError, PeerLost, TransportError, WireError
from bridge.link.link import Link
from bridge.link.loopback import Loopback
from bridge.link.pace import LinkPace
from bridge.link.stream import Stream
from bridge.rank import RankId
from bridge.system.awake import AwakeClock
from bridge.system.loop import Loop
from bridge.transports.transport import Connection
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


class Frames(Protocol):
    """Who takes the frames of channels: the `Router`."""

    def place_for(self, header: Header) -> memoryview | None: ...
    def on_frame(self, link: Link, header: Header, payload: memoryview) -> None: ...
    def link_lost(self, link: Link, error: PeerLost) -> None: ...


class Peers:
    """The FrameSink of all connections. Reports: Introduced, LinkProbed, LostPeer, TurnedAway, Failed.

    A link is connected when it is first needed, and then stays so until its peer is lost.

    patience_s  a peer that is silent for so long is lost, and so is one that is not reached; an emulated line's delay
                is no silence. Until then a connection that breaks is made anew, by the side that dialled it, and
                nothing is lost or repeated.
    """

    def __init__(self, loop: Loop, frames: Frames, report: Callable[[Word], None], patience_s: float) -> None:
        self._loop, self._frames, self._report, self._patience_s = loop, frames, report, patience_s
        self._clock = AwakeClock(longest_s=patience_s / BEATS)
        self._peers: dict[str, Peer] = {}
        self._dialler = Dialler(loop, self, self._clock, self._peers, self._take_up, self._need)
        self._home: Link | None = None
        self._established: dict[Connection, tuple[Link, Stream]] = {}
        self._routes: dict[RankId, str] = {}
        self._next_refusal = 0.0
        self._refusals = 0

    @property
    def identity(self) -> Identity:
        """Who this endpoint is, once it listens."""
        return self._dialler.identity

    def listen(self, endpoint: str, host: str, schemes: Sequence[str]) -> dict[str, str]:
        """Takes the name `endpoint`, binds a port for each scheme, and is its own first peer. Gives the URIs."""
        uris = self._dialler.listen(endpoint, host, schemes)
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
        self._dialler.close()

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
                self._dialler.on_frame(connection, header, head, body)
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
        stream.seal.open_into(header, head, body, place)
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

    def _need(self, peer: Peer) -> Link:
        """Has a link connected, from now on and until its peer is lost. Gives the link."""
        link = peer.link
        if not (peer.needed or link.is_lost):
            peer.needed = True
            for stream in link.streams:
                if not stream.connection:
                    stream.heard()
            self._dialler.connect(peer)
        return link

    def _take_up(self, peer: Peer, connection: Connection, seal: Seal, hello: Hello) -> None:
        """Goes on over a new connection, whose peer has proved itself."""
        link = peer.link
        if link.instance not in ("", hello.instance):
            self._lose(link, "it has started anew", tell=True)
        stream = link.stream(hello.stream)
        if stream.connection:
            self._release(stream.connection)
        peer.reached()
        self._established[connection] = link, stream
        link.attach(stream, connection, seal, hello.expects if hello.resumes == self._dialler.instance else 0)
        link.instance, link.is_lost = hello.instance, False
        self._need(peer)
        link.ping(stream)
        link.pump()

    def _cut(self, connection: Connection, error: WireError) -> None:
        """Ends a connection on which something is wrong; the side that dialled it will try again."""
        known = self._established.get(connection)
        frame = text_frame(FrameKind.CUT, str(error))
        if known:
            known[1].send_control(*frame)
        else:
            connection.send_frame(*Checked().apply(*frame))
            if self._peers and not self._dialler.has_dialled(connection):  # before `introduce`, a peer is only early
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
        known = self._established.pop(connection, None)
        dialled = self._dialler.forget(connection)
        if known and known[1].connection is connection and not known[1].detach(cause, damaged=damaged):
            self._lose(known[0], cause, tell=True)
        elif dialled:
            self._dialler.redial(*dialled, cause)

    def _release(self, connection: Connection) -> None:
        """Closes a connection that is not needed any more."""
        self._established.pop(connection, None)
        self._dialler.forget(connection)
        connection.close()

    def _lose(self, link: Link, cause: str, *, tell: bool) -> None:
        peer = self._peers[link.peer]
        peer.lost.add(link.instance)
        peer.needed = False
        for connection in (*self._dialler.half_open(peer), *(stream.connection for stream in link.streams)):
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
            peer = self._peers[name] = Peer(link, spec.uri, spec.key, secret, spec.sealed)
        self._dialler.admission.meet(name, secret)
        peer.uri, peer.key, peer.secret, peer.sealed = spec.uri, spec.key, secret, spec.sealed
        peer.link.width, peer.link.is_lost = spec.streams, False
        peer.link.run_at(LinkPace(spec.pace.bytes_per_s, spec.pace.delay_s) if spec.pace else None)
        if peer.needed:
            self._dialler.connect(peer)

    def _come_home(self) -> None:
        self._home = home = Link(self.identity.name, self._loop, self._clock)
        connection = Loopback(self._loop, self)
        self._established[connection] = home, home.streams[0]
        home.attach(home.streams[0], connection, Unchecked(), 0)

    # heartbeat

    def _beat(self) -> None:
        period = self._patience_s / BEATS
        for connection in self._dialler.late(self._established, _SILENT_BEATS * period):
            self._cut(connection, wire_error("connection", connection.peer, "no proof of itself in time"))
        needed = [(peer, stream) for peer in self._peers.values() if peer.needed for stream in peer.link.streams]
        late = {peer.name: stream for peer, stream in needed if peer.link.silence_s(stream) > self._patience_s}
        self._give_up({name: stream.cause for name, stream in late.items() if not stream.connections})
        for peer, stream in needed:
            if not peer.link.is_lost:
                self._look_after(peer, stream, peer.link.silence_s(stream), period)
        for link, stream in self._established.values():
            link.ping(stream)
        self._loop.call_at(time.monotonic() + period, self._beat)

    def _look_after(self, peer: Peer, stream: Stream, silence_s: float, period: float) -> None:
        if silence_s > self._patience_s:
            broken = "" if stream.connection else f", and not connected again: {stream.cause}"
            self._lose(peer.link, f"silent for {self._patience_s:g} s{broken}", tell=True)
        elif not stream.connections and silence_s > period:
            self._dialler.dial(peer, stream.index)
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
