"""Credentials are good for one peer, at one endpoint, once."""

from __future__ import annotations

import pytest

from bridge.trust.credentials import Admission

SECRET, OTHER = bytes(32), bytes(range(32))


def admission(name: str, **peers: bytes) -> Admission:
    one = Admission(f"{name}@0")
    for peer, secret in peers.items():
        one.meet(f"{peer}@0", secret)
    return one


def test_a_peer_is_admitted_once_for_each_of_its_credentials() -> None:
    a, b = admission("a", b=SECRET), admission("b", a=SECRET)
    for credentials in [a.credentials("b@0") for _ in range(3)]:
        assert b.admits(*credentials)
        assert not b.admits(*credentials)


def test_dials_may_overtake_each_other_but_not_by_any_number() -> None:
    a, b = admission("a", b=SECRET), admission("b", a=SECRET)
    shown = [a.credentials("b@0") for _ in range(2000)]
    assert all(b.admits(*one) for one in (shown[1], shown[0], shown[5], shown[3], shown[2], shown[4]))
    assert not any(b.admits(*one) for one in shown[:6])
    assert b.admits(*shown[-1])
    assert not b.admits(*shown[6])
    assert b.admits(*shown[-2])


def test_nobody_else_is_admitted() -> None:
    a, b = admission("a", b=SECRET), admission("b", a=SECRET)
    claim, proof = a.credentials("b@0")
    assert not admission("c", a=OTHER).admits(claim, proof)
    assert not admission("c").admits(claim, proof)
    assert not a.admits(claim, proof), "thrown back"
    assert not b.admits(claim.replace("1", "2"), proof)
    assert b.admits(claim, proof)


def test_a_peer_that_starts_anew_counts_anew_and_its_old_credentials_are_void() -> None:
    old, again, b = admission("a", b=SECRET), admission("a", b=OTHER), admission("b", a=SECRET)
    b.meet("a@0", SECRET)
    assert b.admits(*old.credentials("b@0"))
    b.meet("a@0", OTHER)
    assert b.admits(*again.credentials("b@0"))
    assert not b.admits(*old.credentials("b@0"))


@pytest.mark.parametrize("claim", ["", " ", "1", "1 ", "x a@0", "\xff\x00 a@0", "1 a@0 "])
@pytest.mark.parametrize("proof", ["", "0" * 64, "\xff" * 255])
def test_whatever_is_shown_is_answered(claim: str, proof: str) -> None:
    assert not admission("b", a=SECRET).admits(claim, proof)
