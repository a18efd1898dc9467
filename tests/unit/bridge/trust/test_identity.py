"""Two endpoints share a secret that nobody who has heard all that they were told can have."""

from __future__ import annotations

import pytest

from bridge.errors import BridgeError
from bridge.trust.identity import SECRET_BYTES, Identity, fingerprint


def test_both_ends_share_a_secret_that_no_third_one_has() -> None:
    a, b, thief = Identity("a@0"), Identity("b@0"), Identity("a@0")
    secret = a.share("b@0", b.public)
    assert secret == b.share("a@0", a.public)
    assert len(secret) == SECRET_BYTES
    assert secret not in (thief.share("b@0", b.public), b.share("a@0", thief.public))
    assert secret != b.share("c@0", a.public)


def test_a_name_that_starts_anew_has_another_key_and_fingerprint() -> None:
    one, other = Identity("a@0").public, Identity("a@0").public
    assert one != other
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(one) == fingerprint(one)


@pytest.mark.parametrize("key", ["", "5e", "00" * 32, "no hex"])
def test_what_is_no_public_key_is_an_error_that_says_so(key: str) -> None:
    with pytest.raises(BridgeError, match="no public key of an endpoint"):
        Identity("a@0").share("b@0", key)
