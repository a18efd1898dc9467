"""How a stranger becomes a peer: HELLO, HELLO, READY, READY. Whoever dials speaks first, and proves himself first: so
nothing but a handshake comes from one who is not trusted yet."""

from __future__ import annotations

from collections.abc import Callable

from bridge.system.awake import AwakeClock
from bridge.transports.transport import Connection
from bridge.trust.hello import Hello, connection_seal
from bridge.trust.identity import KeyPair
from bridge.trust.seal import Checked, Seal, Unchecked
from bridge.words.frame import Frame, FrameKind, Header, read_text, text_frame, wire_error

_MOST = 1024  # at a time


class Handshake:
    """That of one connection, which is not trusted before it is over.

    since     when it came, by the endpoint's clock
    expected  the endpoint that was dialled, None if the other side dials
    hello     what the other side says of itself; to be believed only when the handshake is over
    """

    def __init__(self, connection: Connection, since: float, expected: str | None = None) -> None:
        self.connection, self.since, self.expected = connection, since, expected
        self.hello: Hello | None = None
        self._seal: Seal = Checked()
        self._pair = KeyPair()
        self._ours = self._theirs = ""

    def send_hello(self, ours: Hello) -> None:
        """Sends our HELLO."""
        self._ours = ours.model_copy(update={"share": self._pair.public}).model_dump_json()
        self._send_frame(text_frame(FrameKind.HELLO, self._ours))

    def hear_hello(self, header: Header, head: memoryview, body: memoryview) -> Hello:
        """The other side's HELLO. Raises WireError if it is none, or of another endpoint than was dialled."""
        if header.kind is not FrameKind.HELLO:
            raise wire_error("kind", header.kind.name, "a connection begins with HELLO")
        self._seal.open_into(header, head, body, None)
        self._theirs = read_text(body)
        hello = Hello.parse(self._theirs)
        if self.expected not in (None, hello.endpoint):
            raise wire_error("hello.endpoint", hello.endpoint, f"{self.expected} was expected there")
        self.hello = hello
        return hello

    def agree(self, secret: bytes) -> None:
        """Derives the key, once both have said HELLO. Raises WireError if their share is none."""
        assert self.hello
        try:
            agreed = self._pair.agree(self.hello.share)
        except ValueError as error:
            raise wire_error("hello.share", self.hello.share, str(error)) from None
        dialled = self.expected is not None
        texts = (self._ours, self._theirs) if dialled else (self._theirs, self._ours)
        self._seal = connection_seal(secret, agreed, *texts, we_dialled=dialled)

    def send_ready(self) -> None:
        """Sends READY."""
        self._send_frame(Frame(Header(FrameKind.READY)))

    def hear_ready(self, header: Header, head: memoryview, body: memoryview, *, sealed: bool) -> Seal:
        """Checks the other side's READY; gives the seal of all frames after it. Raises WireError if it is no proof."""
        if header.kind is not FrameKind.READY:
            raise wire_error("kind", header.kind.name, "READY comes after HELLO")
        self._seal.open_into(header, head, body, None)
        if sealed:
            return self._seal
        return Unchecked() if self.connection.shares_memory else Checked()

    def _send_frame(self, frame: Frame) -> None:
        self.connection.send_frame(*self._seal.apply(frame.header, frame.payload))


class Handshakes:
    """All handshakes of an endpoint.

    secret   what we share with a peer, by its name
    answer   our HELLO to another one, or WireError if that is nobody to talk to
    welcome  called with a connection, its seal and the peer's HELLO when both have proved themselves
    """

    def __init__(
        self,
        secret: Callable[[str], bytes],
        answer: Callable[[Hello], Hello],
        welcome: Callable[[Connection, Seal, Hello], object],
        clock: AwakeClock,
    ) -> None:
        self._secret, self._answer, self._welcome, self._clock = secret, answer, welcome, clock
        self._under_way: dict[Connection, Handshake] = {}

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._under_way

    def dial(self, connection: Connection, peer: str, ours: Hello) -> None:
        """Speaks first on a connection of our own."""
        self._under_way[connection] = handshake = Handshake(connection, self._clock.now(), peer)
        handshake.send_hello(ours)

    def notice(self, connection: Connection) -> None:
        """Somebody is there, and has perhaps said nothing yet."""
        self._under_way.setdefault(connection, Handshake(connection, self._clock.now()))

    def forget(self, connection: Connection) -> None:
        """It is over, or no stranger any more."""
        self._under_way.pop(connection, None)

    def waiting_for(self, seconds: float) -> list[Connection]:
        """Connections that have been at it for longer."""
        before = self._clock.now() - seconds
        return [connection for connection, handshake in self._under_way.items() if handshake.since < before]

    def on_frame(self, connection: Connection, header: Header, head: memoryview, body: memoryview) -> None:
        """A stranger's frame. Raises WireError if the connection is to be cut."""
        if connection not in self._under_way:
            if len(self._under_way) >= _MOST:
                raise wire_error("connection", connection.peer, f"{_MOST} others are shaking hands already")
            self._under_way[connection] = Handshake(connection, self._clock.now())
        handshake = self._under_way[connection]
        if handshake.hello is None:
            hello = handshake.hear_hello(header, head, body)
            ours = self._answer(hello)
            if handshake.expected is None:
                handshake.send_hello(ours)
            handshake.agree(self._secret(hello.endpoint))
            if handshake.expected is not None:
                handshake.send_ready()
        else:
            seal = handshake.hear_ready(header, head, body, sealed=handshake.hello.sealed)
            connection.trust()
            if handshake.expected is None:
                handshake.send_ready()
            self.forget(connection)
            self._welcome(connection, seal, handshake.hello)
