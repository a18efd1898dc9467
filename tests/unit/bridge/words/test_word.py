"""How a word crosses: whole, or with an error that names what does not fit."""

from __future__ import annotations

import math
import socket
import struct
from dataclasses import dataclass, replace
from typing import Any

import pytest
from pydantic import TypeAdapter

from backends.options import EmulateOptions, SpeedEvent
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from bridge.errors import BridgeError, ReleaseDiffers, WireError, WordError
from bridge.options import BridgeOptions, CodecOptions, LinkOptions
from bridge.port.pipe import Pipe
from bridge.rank import RankId
from bridge.words.channel import ChannelSpec
from bridge.words.endpoint import (
    Attach,
    Failed,
    Introduce,
    Introduced,
    LinkProbed,
    Listen,
    Listening,
    PaceSpec,
    PeerSpec,
    ProbeLink,
    Stop,
)
from bridge.words.error import ErrorReport
from bridge.words.port import Broken, Open, Received, Send
from bridge.words.release import RELEASE, Release
from bridge.words.word import Order, Word, decode, encode, unexpected
from hetero.words.fork_server import Fork, Forked
from hetero.words.notices import ChipWaits, CodecFallback, MemoryUsed
from hetero.words.options import EvalOptions
from hetero.words.orders import Calibrate, Calibrated, Configure, JoinWorld, Rate, Rated, Saved, TimedUnit
from hetero.words.piece import StoredPiece, StoredTensor
from hetero.words.pool import Pool
from hetero.words.spec import Capture
from hetero.words.step import StepReport, StepTotals
from tests.patience import WAIT_S
from tests.unit.hetero.cluster.specs import CALIBRATION, epoch_spec

A, B = RankId("a", 0), RankId("b", 1)
SPEC = ChannelSpec(3, "activation", "x", A, B, 16, 2)
POOL = Pool("a", "cpu", "cpu", 2, emulate=EmulateOptions(speed=0.5, events=(SpeedEvent(at_step=1, speed=2.0),)))
CHUNKS = StagePlan(pool="a", units=((0, 1), (2, 3)), chips=(0,), owns=((0, 1),))
CONFIGURE = Configure(
    epoch_spec(1, 2, state="live").model_copy(
        update={
            "plan": Plan(epoch=1, pipelines=(PipelinePlan(share=1, stages=(CHUNKS,)),)),
            "pools": {"a": POOL},
            "bridge": BridgeOptions(codec=CodecOptions(activation="int8"), links=(LinkOptions(between=("a", "b")),)),
            "evaluation": EvalOptions(every=3),
            "capture": Capture(folder="/f", steps=(1, 2)),
        }
    )
)
BOX = StoredTensor(shape=(4, 2), region=((0, 4), (0, 1)), kinds=("parameter",))
SAVED = Saved(7, StoredPiece(rank="a:0", file="f", size_bytes=8, checksum="5e", tensors={"w": BOX}))
TOTALS = StepTotals(5.0, 1000, 1.5, 1e-3, 1.0, False, 4000, 900)
STEP = StepReport(
    3, 0, 100.0, 101.5, 0.1, 0.2, 0.0, 0.1, 0.05, 0.25, 0.01, {"b": (10, 0.5)}, {}, 1 << 40, False,
    A, 0, 1, 0, TOTALS, (("F 0.0", 100.0, 0.1), ("STEP", 101.0, 0.1)),
)  # fmt: skip
WORDS: list[Word] = [
    Stop(),
    Attach(A),
    Listen("a@0", "127.0.0.1", ("zmq", "grpc")),
    Listening({"zmq": "zmq://127.0.0.1:1"}, "5e"),
    Introduce({"b@0": PeerSpec(None, "5e", 3, True, PaceSpec(1e9, 0.001))}, {"b:1": "b@0"}),
    LinkProbed("b@0", 1e9, None, 0.3),
    Failed(ErrorReport.of(WireError("frame", 3, "bad", "mend it"), "Traceback")),
    Open(SPEC),
    Send((1 << 64) - 1, 1, 1 << 40, 0),
    Received(1, 7, 0.25),
    Broken(1, ErrorReport.of(ValueError("é\n"))),
    Fork((A, B)),
    Forked({0: 17, 1: 18}, {"torch": "2.13"}),
    JoinWorld(POOL),
    Calibrate(CALIBRATION),
    CONFIGURE,
    Calibrated((TimedUnit("a", 2, "attention", 0.1, 0.2),)),
    Rated((Rate("a", "products", 2, (64, 128, 256), 1e12, 1e-6, 9, 0.01),)),
    Saved(7, None),
    SAVED,
    CodecFallback(("a", "b"), "b:1", "activation", "x", "int8", "bf16", 0.5, 0.1, 64),
    ChipWaits("world", 0, (1, 2), 30.5),
    MemoryUsed(0, 1, 1 << 40, 1 << 39, 1 << 41),
    STEP,
]


@pytest.mark.parametrize("word", WORDS, ids=lambda word: type(word).__name__)
def test_a_word_crosses_whole(word: Word) -> None:
    assert decode(encode(word)) == word


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_has_not_cross_too(loss: float) -> None:
    step = decode(encode(replace(STEP, totals=replace(TOTALS, loss=loss))))
    assert isinstance(step, StepReport)
    assert step.totals
    assert str(step.totals.loss) == str(loss)
    told = Calibrated((TimedUnit("a", 2, "head", loss, loss),))
    assert str(decode(encode(told))) == str(told)


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (b'Nonsense {"a":1}', "word = Nonsense"),
        (b'{"do": "stop"}', "word = "),
        (b"\xff\xfe", "word = "),
        (b"", "word = "),
        (b"Stop", "Stop"),
        (b'Stop {"now":true}', "Stop.now = True"),
        (b"Send {}", "Send.channel"),
        (b'Send {"channel":1,"slot":"1","nbytes":2,"filled":2}', "Send.slot = str"),
        (b'Send {"channel":1,"slot":true,"nbytes":2,"filled":2}', "Send.slot = True"),
        (b'Send {"channel":1,"slot":1.5,"nbytes":2,"filled":2}', "Send.slot = 1.5"),
        (b'Received {"channel":1,"nbytes":2,"transfer_s":"0.5"}', "Received.transfer_s = str"),
        (b'Attach {"rank":["a","0"]}', "Attach.rank"),
        (b'Attach {"rank":["a",0,1]}', "Attach.rank"),
        (encode(Open(SPEC)).replace(b'"slots":2', b'"slots":0'), "Open.spec"),
        (encode(Open(SPEC)).replace(b'"slots":2', b'"slots":"2"'), "Open.spec.slots = str"),
        (encode(Open(SPEC)).replace(b'"slots":2', b'"slots":2,"more":1'), "Open.spec.more = 1"),
        (encode(CONFIGURE).replace(b'"share":1', b'"share":"1"'), "Configure.spec.plan.pipelines.0.share = str"),
        (encode(CONFIGURE).replace(b'"epoch":1', b'"epoch":1,"more":1', 1), "Configure.spec.more = 1"),
        (encode(CONFIGURE).replace(b'"live"', b'"checkpoint"'), "an epoch that begins from a checkpoint"),
        (encode(CONFIGURE).replace(b'"speed":2.0', b'"speed":-2.0'), "Configure.spec.pools.a.emulate.events.0.speed"),
        (encode(JoinWorld(POOL)).replace(b'"count":2', b'"count":true'), "JoinWorld.pool.count = True"),
        (encode(SAVED).replace(b'"file":"f"', b'"file":"../f"'), "Saved.piece.file = str"),
        (encode(STEP).replace(b'"skipped":false', b'"skipped":0'), "StepReport.totals.skipped = 0"),
        (encode(STEP).replace(b'"rank":["a"', b'"rank":[1'), "StepReport.rank"),
        (encode(STEP).replace(b'"loss":5.0', b'"loss":null'), "StepReport.totals.loss = None"),
        (b'Told {"kind":"codec_fallback","step":7,"epoch":0,"data":{}}', "word = Told"),
        (b'Diverged {"loss":1.0}', "word = Diverged"),
        (b'ChipWaits {"group":"world","chip":"0","waits_for":[1],"seconds":30.5}', "ChipWaits.chip = str"),
    ],
)  # fmt: skip
def test_what_is_no_word_or_has_other_fields_is_refused_and_named(data: bytes, where: str) -> None:
    with pytest.raises(WordError, match="one release") as caught:
        decode(data)
    assert where in str(caught.value)


def test_what_is_refused_tells_no_secret() -> None:
    data = encode(JoinWorld(POOL, "10.0.0.1:1", "s3cret"))
    for damaged in (data.replace(b'"chip":"cpu",', b""), data.replace(b'"s3cret"', b'["s3cret"]'), data[:-1]):
        with pytest.raises(WordError) as caught:
            decode(damaged)
        assert "s3cret" not in str(caught.value)
        assert "s3cret" not in str(ErrorReport.of(caught.value))


def test_a_word_that_nobody_expects_is_an_error() -> None:
    assert "Stop" in str(unexpected(Stop()))


def test_a_name_is_one_word_s_alone() -> None:
    with pytest.raises(TypeError, match=r"bridge\.words\.endpoint"):
        type("Stop", (Word,), {})


def test_an_order_knows_its_answer() -> None:
    assert (ProbeLink.answer, Introduce.answer, Listen.answer) == (LinkProbed, Introduced, Listening)
    assert all(hasattr(kind, "answer") for kind in _below(Order) if "Order" not in kind.__name__)


def _below(kind: type[Any]) -> set[type[Any]]:
    return {one for child in kind.__subclasses__() for one in (child, *_below(child))}


# Releases


def frame(word: bytes) -> bytes:
    return struct.pack("!IB", len(word), 0) + word


@dataclass
class Other:
    """The end of a process of another release."""

    socket: socket.socket

    def says(self, *words: bytes) -> None:
        self.socket.sendall(b"".join(map(frame, words)))


@pytest.fixture
def ends() -> tuple[Pipe, Other]:
    ours, theirs = socket.socketpair()
    return Pipe(ours), Other(theirs)


def test_each_end_says_its_release_before_its_first_word(ends: tuple[Pipe, Other]) -> None:
    pipe, other = ends
    pipe.send_word(Stop())
    pipe.send_word(Stop())
    said = b"".join(map(frame, (encode(Release(RELEASE)), encode(Stop()), encode(Stop()))))
    assert other.socket.recv(4096) == said
    other.says(encode(Release(RELEASE)), encode(Stop()))
    assert pipe.recv_word(WAIT_S)[0] == Stop()


def test_who_takes_over_an_inherited_end_says_so_at_once() -> None:
    ours, theirs = socket.socketpair()
    Pipe.from_fd(ours.detach()).close()
    assert theirs.recv(4096) == frame(encode(Release(RELEASE)))


@pytest.mark.parametrize(
    ("first", "value"),
    [(b'Release {"release":"0.0.9"}', "0.0.9"), (b'{"report":"ready","pid":7}', None), (b"Stop {}", None)],
)
def test_another_release_is_named_and_its_words_are_heard_all_the_same(
    first: bytes, value: str | None, ends: tuple[Pipe, Other]
) -> None:
    pipe, other = ends
    other.says(first, encode(Stop()))
    with pytest.raises(ReleaseDiffers, match=RELEASE) as caught:
        pipe.recv_word(WAIT_S)
    assert (caught.value.key, caught.value.value) == ("release", value)
    assert pipe.recv_word(WAIT_S)[0] == Stop()


def test_behind_what_is_no_word_the_next_is_heard(ends: tuple[Pipe, Other]) -> None:
    pipe, other = ends
    other.says(encode(Release(RELEASE)), b"Nonsense {}", encode(Stop()))
    with pytest.raises(WordError, match="Nonsense"):
        pipe.recv_word(WAIT_S)
    assert pipe.recv_word(WAIT_S)[0] == Stop()


KINDS = sorted({kind.__name__ for kind in (Word, *_below(Word)) if kind.__subclasses__()})


@pytest.mark.parametrize("name", [*KINDS, "RankOrder"])
def test_a_kind_of_words_is_no_word(name: str) -> None:
    assert {"Word", "Order", "Answer", "ChannelReport"} < set(KINDS)
    with pytest.raises(WordError, match="not known"):
        decode(f'{name} {{"channel":1}}'.encode())


def test_an_error_with_a_name_that_is_no_utf_8_is_told() -> None:
    said = ErrorReport.of(OSError("no \udcff there"), "in \udcff")
    assert TypeAdapter(ErrorReport).dump_json(said)
    assert "udcff" in said.message


def test_a_value_that_is_true_is_told_as_it_was_written() -> None:
    assert ErrorReport.of(BridgeError("key", True, "rule", "remedy")).value == "True"
