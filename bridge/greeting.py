"""How a stranger becomes a peer: HELLO, HELLO, READY, READY. Whoever dials speaks first."""

from __future__ import annotations

from collections.abc import Callable

from bridge.awake import AwakeClock
from bridge.guard import Checked, Guard, Unchecked
from bridge.handshake import Hello, derive
from bridge.transport import Connection
from bridge.wire import Frame, Header, Kind, read_text, text_frame, wire_error

_MOST = 1024  # strangers at the door


class Greeting:
    """A connection that is not trusted yet.

    since     when it came, by the door's clock
    expected  the endpoint that was dialled, None if the other side dials
    hello     what the other side says of itself; to be believed only when the handshake is over
    """

    def __init__(self, connection: Connection, since: float, expected: str | None = None) -> None:
        self.connection, self.since, self.expected = connection, since, expected
        self.hello: Hello | None = None
        self._guard: Guard = Checked()
        self._ours = self._theirs = ""

    def speak(self, ours: Hello) -> None:
        """Sends our HELLO."""
        self._ours = ours.model_dump_json()
        self._send(text_frame(Kind.HELLO, self._ours))

    def hear_hello(self, header: Header, head: memoryview, body: memoryview) -> Hello:
        """The other side's HELLO. Raises WireError if it is none, or of another endpoint than was dialled."""
        if header.kind is not Kind.HELLO:
            raise wire_error("kind", header.kind.name, "a connection begins with HELLO")
        self._guard.open(header, head, body, None)
        self._theirs = read_text(body)
        hello = Hello.parse(self._theirs)
        if self.expected not in (None, hello.endpoint):
            raise wire_error("hello.endpoint", hello.endpoint, f"{self.expected} was expected there")
        self.hello = hello
        return hello

    def prove(self, job_key: bytes | None) -> None:
        """Sends READY, once both have said HELLO."""
        if job_key is not None:
            dialled = self.expected is not None
            texts = (self._ours, self._theirs) if dialled else (self._theirs, self._ours)
            self._guard = derive(job_key, *texts, we_dialled=dialled)
        self._send(Frame(Header(Kind.READY)))

    def hear_ready(self, header: Header, head: memoryview, body: memoryview, *, sealed: bool) -> Guard:
        """Checks the other side's READY; gives the guard of all frames after it. Raises WireError if it is no proof."""
        if header.kind is not Kind.READY:
            raise wire_error("kind", header.kind.name, "READY comes after HELLO")
        self._guard.open(header, head, body, None)
        if sealed:
            return self._guard
        return Unchecked() if self.connection.shares_memory else Checked()

    def _send(self, frame: Frame) -> None:
        self.connection.send(*self._guard.seal(frame.header, frame.payload))


class Door:
    """All greetings of an endpoint.

    key      the job's, or None: then whoever knocks is believed
    answer   our HELLO to another one, or WireError if that is nobody to talk to
    welcome  called with a connection, its guard and the peer's HELLO when both have proved themselves
    """

    def __init__(
        self,
        key: bytes | None,
        answer: Callable[[Hello], Hello],
        welcome: Callable[[Connection, Guard, Hello], object],
        clock: AwakeClock,
    ) -> None:
        self._key, self._answer, self._welcome, self._clock = key, answer, welcome, clock
        self._greetings: dict[Connection, Greeting] = {}

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._greetings

    def dial(self, connection: Connection, peer: str, ours: Hello) -> None:
        """Speaks first on a connection of our own."""
        self._greetings[connection] = greeting = Greeting(connection, self._clock.now(), peer)
        greeting.speak(ours)

    def forget(self, connection: Connection) -> None:
        """It is over, or no stranger any more."""
        self._greetings.pop(connection, None)

    def waiting_for(self, seconds: float) -> list[Connection]:
        """Those that have been at the door for longer."""
        before = self._clock.now() - seconds
        return [connection for connection, greeting in self._greetings.items() if greeting.since < before]

    def on_frame(self, connection: Connection, header: Header, head: memoryview, body: memoryview) -> None:
        """A stranger's frame. Raises WireError if the connection is to be cut."""
        if connection not in self._greetings:
            if len(self._greetings) >= _MOST:
                raise wire_error("connection", connection.peer, f"{_MOST} others are being greeted already")
            self._greetings[connection] = Greeting(connection, self._clock.now())
        greeting = self._greetings[connection]
        if greeting.hello is None:
            ours = self._answer(greeting.hear_hello(header, head, body))
            if greeting.expected is None:
                greeting.speak(ours)
            greeting.prove(self._key)
        else:
            guard = greeting.hear_ready(header, head, body, sealed=greeting.hello.sealed)
            self.forget(connection)
            self._welcome(connection, guard, greeting.hello)
