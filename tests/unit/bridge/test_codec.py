from __future__ import annotations

from itertools import pairwise

import pytest

from bridge.codec import BLOCK, BY_TAG, CODECS, ITEM_BYTES, NONE, Codec, blocks

ALL = pytest.mark.parametrize("codec", CODECS.values(), ids=lambda codec: codec.name)


def test_codecs_are_listed_from_fine_to_coarse_and_have_tags_of_their_own() -> None:
    bounds = [codec.error_bound for codec in CODECS.values()]
    assert bounds == sorted(set(bounds))
    assert len(BY_TAG) == len(CODECS)
    assert all(name == codec.name for name, codec in CODECS.items())


@ALL
def test_fallbacks_become_ever_finer_and_end_with_none(codec: Codec) -> None:
    row = [codec, *codec.fallbacks()]
    assert row[-1] is NONE
    assert all(one.is_coarser(other) for one, other in pairwise(row))


def test_what_a_message_costs() -> None:
    assert [blocks(count) for count in (0, 1, BLOCK, BLOCK + 1)] == [0, 1, 1, 2]
    assert CODECS["none"].encoded_bytes(10, "float32") == 40
    assert CODECS["bf16"].encoded_bytes(10, "float32") == 20
    assert CODECS["int8"].encoded_bytes(2 * BLOCK + 3, "bfloat16") == 2 * BLOCK + 3 + 12
    assert CODECS["fp8"].encoded_bytes(0, "float32") == 0


@ALL
@pytest.mark.parametrize("dtype", ITEM_BYTES)
def test_a_slot_has_room_for_every_fallback_and_the_tag(codec: Codec, dtype: str) -> None:
    for count in (0, 1, 5, BLOCK, 3 * BLOCK + 1):
        needed = [one.encoded_bytes(count, dtype) for one in (codec, *codec.fallbacks())]
        assert codec.slot_bytes(count, dtype) == max(needed) + 1


def test_what_a_codec_saves_depends_on_what_it_is_given() -> None:
    assert CODECS["none"].estimate_ratio("float32") == 1
    assert CODECS["bf16"].estimate_ratio("float32") == 0.5
    assert CODECS["bf16"].estimate_ratio("bfloat16") == 1
    assert CODECS["int8"].estimate_ratio("float32") == pytest.approx(0.2539, abs=1e-4)
    assert CODECS["fp8"].estimate_ratio("bfloat16") == pytest.approx(0.5078, abs=1e-4)
