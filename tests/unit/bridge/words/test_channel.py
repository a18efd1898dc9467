from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import xxhash

from bridge.rank import RankId
from bridge.words.channel import ChannelSpec
from bridge.words.port import Open
from bridge.words.word import decode, encode

SPEC = ChannelSpec(3, "gradient", "boundary 2", RankId("a", 0), RankId("b", 1), 1024, 4)


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 4},
        {"purpose": "activation"},
        {"name": "boundary 3"},
        {"source": RankId("a", 1)},
        {"target": RankId("b", 0)},
        {"slot_bytes": 1025},
    ],
)
def test_the_id_depends_on_everything_but_the_slots(change: dict[str, Any]) -> None:
    assert replace(SPEC, **change).id != SPEC.id
    assert replace(SPEC, slots=9).id == SPEC.id


def test_the_id_is_the_same_in_every_process() -> None:
    assert SPEC.id == xxhash.xxh3_64_intdigest(b"3\x00gradient\x00boundary 2\x00a:0\x00b:1\x001024\x001")


def test_it_travels_in_a_word() -> None:
    assert decode(encode(Open(SPEC))) == Open(SPEC)


@pytest.mark.parametrize(
    "change", [{"purpose": "gossip"}, {"target": SPEC.source}, {"slots": 0}, {"slot_bytes": -1}, {"epoch": -1}]
)
def test_a_spec_without_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"gossip|itself|slots"):
        replace(SPEC, **change)
