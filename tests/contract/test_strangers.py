"""Whoever is no peer, or says what makes no sense, is refused, told of, and does no harm."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil
import pytest
import zmq

from bridge.port.port import Channel
from bridge.transports import front, grpc, probation
from bridge.transports.transport import Credentials
from bridge.transports.zmq import ZmqConnection
from bridge.trust.credentials import Admission
from bridge.trust.hello import Hello, connection_seal
from bridge.trust.identity import Identity, KeyPair
from bridge.trust.seal import Checked, Encrypted
from bridge.words.endpoint import Failed, Introduce, Introduced, PeerSpec, TurnedAway
from bridge.words.frame import EMPTY, HEADER_BYTES, FrameKind, Header, text_frame
from tests.contract import fuzz, fuzz_wire, strangers
from tests.contract.bridge_hosts import Host, channel, cross, introduce, link
from tests.contract.faults import Relay
from tests.patience import WAIT_S

pytestmark = pytest.mark.slow
HELLO = Hello(endpoint="a@0", instance="stranger", sealed=True, share=KeyPair().public)
Start = Callable[..., Host]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts hosts. They are closed before what a test has patched is put back."""
    hosts: list[Host] = []

    def begin(name: str, *, patience_s: float = 1.0) -> Host:
        hosts.append(Host(name, ["zmq", "grpc"], patience_s=patience_s))
        return hosts[-1]

    yield begin
    for host in hosts:
        host.close()


@pytest.fixture
def pair(start: Start) -> tuple[Host, Host]:
    """Two hosts that talk, sealed."""
    a, b = start("a@0", patience_s=10.0), start("b@0", patience_s=10.0)
    link(a, b, "zmq", sealed=True)
    return a, b


class Stranger:
    """Speaks to a listener's ZeroMQ socket, once it has been let in."""

    def __init__(self, uri: str, credentials: Credentials) -> None:
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RECONNECT_IVL, -1)
        self.socket.setsockopt_string(zmq.PLAIN_USERNAME, credentials.claim)
        self.socket.setsockopt_string(zmq.PLAIN_PASSWORD, credentials.proof)
        self.socket.connect(uri.replace("zmq://", "tcp://"))

    def say(self, *parts: bytes | memoryview) -> None:
        with contextlib.suppress(zmq.Again):  # it has been hung up on already
            self.socket.send_multipart(parts, zmq.DONTWAIT)

    def hears(self, seconds: float = 5.0) -> list[bytes]:
        assert self.socket.poll(seconds * 1000)
        return self.socket.recv_multipart()


def credentials_for(host: Host) -> Credentials:
    """Such as a peer has, `c@0`, of which the host is told."""
    peer, admission = Identity("c@0"), Admission("c@0")
    host.control.send_word(Introduce({"c@0": PeerSpec(None, peer.public)}))
    host.expect(Introduced)
    admission.meet(host.name, peer.share(host.name, host.key))
    return admission.credentials(host.name)


@pytest.fixture
def stranger(pair: tuple[Host, Host]) -> Iterator[Stranger]:
    """One who has got hold of good credentials before they were used."""
    one = Stranger(pair[1].uris["zmq"], credentials_for(pair[1]))
    yield one
    one.socket.close()


def frame(kind: FrameKind, text: str = "", **fields: int) -> tuple[bytes, memoryview]:
    header, payload = text_frame(kind, text)
    return Checked().apply(header._replace(**fields), payload)


@pytest.mark.parametrize("scheme", ["zmq", "grpc"])
@pytest.mark.parametrize("sealed", [True, False])
def test_whoever_has_another_key_than_was_told_is_not_let_in(scheme: str, sealed: bool, start: Start) -> None:
    a, b = start("a@0"), start("b@0")
    introduce(a, b, scheme, sealed=sealed)
    a.key = KeyPair().public
    introduce(b, a, scheme, sealed=sealed)
    channel(a.port(), b.port())
    for host in (a, b):
        while isinstance(word := host.control.recv_word(WAIT_S)[0], TurnedAway):
            assert "credentials" in word.cause
        assert isinstance(word, Failed)
        assert word.error.type == "TransportError"


GARBAGE = {
    "noise": (os.urandom(200), os.urandom(1000)),
    "nothing": (b"",),
    "a short head": (bytes(HEADER_BYTES - 1), b"x"),
    "data first": frame(FrameKind.DATA, "x", number=0),
    "a hello that is none": frame(FrameKind.HELLO, '{"endpoint": 3}'),
    "a hello of nobody": frame(FrameKind.HELLO, Hello(endpoint="z@9", instance="i").model_dump_json()),
    "a size that lies": (Header(FrameKind.DATA, total=1 << 63, offset=1 << 62, length=(1 << 32) - 1).encode(), b"x"),
    "a text that lies": (Header(FrameKind.HELLO, length=(1 << 32) - 1).encode(), b"x"),
    "another version": (b"HB\x63" + bytes(HEADER_BYTES - 3), b""),
    "three parts": (*frame(FrameKind.HELLO, "x"), b"more"),
}


@pytest.mark.parametrize("parts", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_refused_with_a_reason_and_the_peers_go_on(
    parts: tuple[bytes, ...], pair: tuple[Host, Host], stranger: Stranger
) -> None:
    ends = channel(pair[0].port(), pair[1].port())
    stranger.say(*parts)
    if len(parts) < 3:  # what ZeroMQ itself can tell is no frame is not even looked at
        refused = pair[1].expect(TurnedAway)
        assert refused.stranger
        assert "frame." in refused.cause
    assert cross(*ends, b"undisturbed") == b"undisturbed"


def test_a_handshake_that_is_played_again_is_refused(pair: tuple[Host, Host], start: Start) -> None:
    a, b = start("a@0", patience_s=10.0), start("c@0", patience_s=10.0)
    said: list[tuple[bytes, bytes]] = []
    send = ZmqConnection.send_frame

    def overheard(connection: ZmqConnection, head: bytes, body: memoryview) -> None:
        if connection.route is None:
            said.append((head, bytes(body)))
        send(connection, head, body)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ZmqConnection, "send_frame", overheard)
        link(a, b, "zmq", sealed=True)
        assert cross(*channel(a.port(), b.port()), b"secret") == b"secret"
    again = Stranger(b.uris["zmq"], credentials_for(b))
    for parts in said:
        again.say(*parts)
    assert "seal" in b.expect(TurnedAway).cause
    again.socket.close()


def test_a_frame_that_is_played_again_ends_the_connection_alone(
    pair: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = channel(pair[0].port(), pair[1].port())
    send, left = ZmqConnection.send_frame, [1]

    def twice(connection: ZmqConnection, head: bytes, body: memoryview) -> None:
        send(connection, head, body)
        if head[3] == FrameKind.DATA and left:
            left.pop()
            send(connection, head, body)

    monkeypatch.setattr(ZmqConnection, "send_frame", twice)
    for word in (b"one", b"two", b"three"):
        assert cross(*ends, word) == word


@pytest.mark.parametrize("scheme", ["zmq", "grpc"])
def test_the_wire_does_not_show_the_payload(scheme: str, start: Start) -> None:
    a, b = start("a@0", patience_s=10.0), start("b@0", patience_s=10.0)
    relay = Relay(b.uris[scheme])
    b.uris[scheme] = relay.uri
    link(a, b, scheme, sealed=True)
    payload = b"a sentence that nobody else may read " * 20
    assert cross(*channel(a.port(), b.port()), payload) == payload
    assert b"a@0" in relay.seen  # it did look at the wire
    assert b"nobody else" not in relay.seen
    relay.close()


def test_no_key_and_nonce_occur_twice_over_a_hundred_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    used: set[tuple[bytes, int]] = set()
    keys: set[bytes] = set()
    init = Encrypted.__init__

    def noted(self: Encrypted, send_key: bytes, receive_key: bytes) -> None:
        keys.update((send_key, receive_key))
        init(self, send_key, receive_key)

    monkeypatch.setattr(Encrypted, "__init__", noted)
    apply = Encrypted.apply

    def counted(self: Encrypted, header: Header, payload: memoryview) -> tuple[bytes, memoryview]:
        nonce = (id(self._ours), self._sealed)
        assert nonce not in used
        used.add(nonce)
        return apply(self, header, payload)

    monkeypatch.setattr(Encrypted, "apply", counted)
    seals = []
    for _ in range(100):
        texts = [Hello(endpoint=name, instance="i").model_dump_json() for name in ("a@0", "b@0")]
        agreed = KeyPair().agree(KeyPair().public)
        here, there = (connection_seal(bytes(32), agreed, *texts, we_dialled=dialled) for dialled in (True, False))
        seals += [here, there]
        for one, other in ((here, there), (there, here)):
            header = Header(FrameKind.READY)
            head, body = one.apply(header, EMPTY)
            other.open_into(header, memoryview(head), body, None)
    assert len(keys) == 200
    assert len(used) == 200


def test_strangers_that_say_nothing_are_shown_the_door(start: Start) -> None:
    b = start("b@0", patience_s=1.0)
    a = start("a@0", patience_s=1.0)
    link(a, b, "zmq", sealed=True)
    silent = Stranger(b.uris["zmq"], credentials_for(b))
    silent.say(*frame(FrameKind.HELLO, HELLO.model_dump_json()))
    assert Header.decode(silent.hears()[0]).kind is FrameKind.HELLO
    assert "no proof" in b.expect(TurnedAway).cause
    silent.socket.close()


def test_credentials_that_were_overheard_are_worth_nothing(
    pair: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.endpoint.peers._REFUSAL_S", 0.0)
    credentials = credentials_for(pair[1])
    for expected in ("header length", "credentials"):  # who comes first is let in, and says nonsense
        one = Stranger(pair[1].uris["zmq"], credentials)
        one.say(b"x")
        assert expected in pair[1].expect(TurnedAway).cause
        one.socket.close()


def test_what_bounds_strangers_does_not_end_a_peer(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC's idle and age limits, and every probation, are long over."""
    short = {"grpc.max_connection_age_ms": 300, "grpc.max_connection_idle_ms": 200}
    options = [(name, short.get(name, value)) for name, value in grpc._SERVER_OPTIONS]
    monkeypatch.setattr(grpc, "_SERVER_OPTIONS", options)
    for module in (probation, front):
        monkeypatch.setattr(module, "LIMIT_S", 0.5)
    for scheme in ("zmq", "grpc"):
        a, b = start("a@0", patience_s=10.0), start("b@0", patience_s=10.0)
        link(a, b, scheme)
        ends = channel(a.port(), b.port(), slot_bytes=1 << 22)
        assert cross(*ends, b"young") == b"young"
        time.sleep(2.0)
        assert cross(*ends, b"old" * (1 << 20)) == b"old" * (1 << 20)
        assert [one.stats(other.name)["reconnects"] for one, other in ((a, b), (b, a))] == [0, 0]


KINDS = [(scheme, kind) for scheme, kinds in strangers.BY_SCHEME.items() for kind in kinds]
IN_EVERY_RUN = ("silent", "wrong_proof", "endless_command", "silent_streams", "endless_headers")
"""Who says nothing, who nearly gets in, and who does not come to an end."""


@dataclass(frozen=True)
class Talking:
    """Two endpoints in processes of their own, and what crosses between them."""

    scheme: str
    uri: str
    endpoint: psutil.Process
    ends: tuple[Channel, Channel]


@pytest.fixture(scope="module")
def talking(request: pytest.FixtureRequest) -> Iterator[Talking]:
    """The same for all kinds of strangers, who come one after another."""
    scheme: str = request.param
    a, b = (Host(name, ["zmq", "grpc"], process=True) for name in ("a@0", "b@0"))
    link(a, b, scheme)
    assert b.process
    yield Talking(scheme, b.uris[scheme], psutil.Process(b.process.pid), channel(a.port(), b.port()))
    a.close()
    b.close()


@pytest.mark.parametrize(
    ("talking", "kind"),
    [pytest.param(*of, id=" ".join(of), marks=() if of[1] in IN_EVERY_RUN else pytest.mark.exhaustive) for of in KINDS],
    indirect=["talking"],
)
def test_strangers_cost_next_to_nothing_and_are_hung_up_on(talking: Talking, kind: str) -> None:
    endpoint, ends = talking.endpoint, talking.ends
    assert cross(*ends, b"before") == b"before"
    before_bytes, most_threads = endpoint.memory_info().rss, endpoint.num_threads() + 32
    crowd = strangers.Crowd(strangers.BY_SCHEME[talking.scheme][kind], talking.uri, 100)
    end = time.monotonic() + WAIT_S
    while crowd.present or not crowd.came:
        assert time.monotonic() < end, f"{crowd.present} are still there"
        crowd.turn(0.05, again=False)
        assert endpoint.memory_info().rss - before_bytes < strangers.MOST_BYTES[talking.scheme]
        assert endpoint.num_threads() <= most_threads
        assert cross(*ends, b"undisturbed") == b"undisturbed"
    crowd.close()


def test_no_input_breaks_the_network() -> None:
    fuzz.run(5_000, seed=1)


@pytest.mark.parametrize("scheme", ["zmq", "grpc"])
def test_no_bytes_at_a_port_break_the_endpoint(scheme: str) -> None:
    fuzz_wire.run(scheme, 500, seed=1)


def test_a_crowd_does_not_push_out_who_has_shown_credentials(start: Start) -> None:
    """A peer far away is long on its way from its credentials to its proof."""
    host = start("b@0", patience_s=30.0)
    address, shown = strangers.address_of(host.uris["grpc"]), credentials_for(host)
    with socket.create_connection(address, WAIT_S) as peer, contextlib.ExitStack() as crowd:
        peer.sendall(strangers.PREFACE + strangers.http_frame(4, 0, 0) + strangers.call(1, **shown._asdict()))
        time.sleep(0.5)  # nothing tells when credentials have been looked at
        first = crowd.enter_context(socket.create_connection(address, WAIT_S))
        for _ in range(2 * probation.MOST):
            crowd.enter_context(socket.create_connection(address, WAIT_S))
        assert is_ended(first, WAIT_S)
        assert not is_ended(peer, 0.2)


def is_ended(end: socket.socket, seconds: float) -> bool:
    """Whether the other side hangs up within so long; what it says is thrown away."""
    end.settimeout(seconds)
    try:
        while end.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True
