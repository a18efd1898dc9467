"""A link that one stream does not fill, between network namespaces of the test's own."""

from __future__ import annotations

import pytest

from benchmarks.carriers import ZmqEncrypted
from benchmarks.wan import Line, wan, why_not
from bridge.link.stream_count import find_streams

pytestmark = pytest.mark.slow


def test_a_long_fat_link_is_found_to_take_several_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    if denied := why_not():
        pytest.skip(f"no network namespaces here: {denied}")
    with wan(Line(bytes_per_s=1e8, delay_s=0.05)) as places:
        monkeypatch.setattr(ZmqEncrypted, "places", places)
        monkeypatch.setattr(ZmqEncrypted, "probe_bytes", 32 << 20)
        ends = ZmqEncrypted(1024)
        streams, found = find_streams(ends.probe)
        ends.close()
    assert streams > 1
    assert all(one.rtt_s and 0.1 <= one.rtt_s < 2.0 for one in found)
    assert max(one.bytes_per_s for one in found) < 1e8
