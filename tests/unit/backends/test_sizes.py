"""Bytes, as people read them."""

from __future__ import annotations

import pytest

from backends.sizes import GIB, MIB, size_text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0.0 MiB"), (20.5 * MIB, "20.5 MiB"), (GIB - MIB, "1023.0 MiB"), (GIB, "1.00 GiB"), (1.5 * GIB, "1.50 GiB")],
)
def test_a_gib_is_told_as_one_and_less_in_mib(n_bytes: float, text: str) -> None:
    assert size_text(n_bytes) == text
