from __future__ import annotations

import pytest

from bridge.linux import past_caches

THRESHOLD = "glibc.cpu.x86_non_temporal_threshold"


@pytest.mark.parametrize(
    ("said", "tunables"),
    [
        ({}, f"{THRESHOLD}=0x80000"),
        ({"GLIBC_TUNABLES": ""}, f"{THRESHOLD}=0x80000"),
        ({"GLIBC_TUNABLES": "glibc.malloc.check=1"}, f"glibc.malloc.check=1:{THRESHOLD}=0x80000"),
        ({"GLIBC_TUNABLES": f"{THRESHOLD}=0x4040"}, f"{THRESHOLD}=0x4040"),
    ],
)
def test_copies_go_past_the_caches_unless_somebody_has_said_otherwise(said: dict[str, str], tunables: str) -> None:
    variables = {"PATH": "/bin"} | said
    assert past_caches(variables) == {"PATH": "/bin", "GLIBC_TUNABLES": tunables}
    assert variables == {"PATH": "/bin"} | said
