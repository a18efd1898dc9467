from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from bridge.errors import BridgeError, PeerLost
from bridge.options import BridgeOptions, CodecOptions
from bridge.words.error import ErrorReport


def test_a_link_names_its_own_transport_in_either_order() -> None:
    options = BridgeOptions.model_validate({"links": [{"between": ["a", "b"], "transport": "grpc", "gbit_per_s": 25}]})
    assert options.transport_between("b", "a") == "grpc"
    assert options.transport_between("a", "c") == "auto"
    assert options.link("b", "a").gbit_per_s == 25
    assert options.link("a", "c").gbit_per_s is None


def test_the_section_decides_for_links_that_name_none() -> None:
    options = BridgeOptions.model_validate({"transport": "grpc", "links": [{"between": ["a", "b"], "rtt_ms": 0.2}]})
    assert options.transport_between("a", "b") == "grpc"


def test_streams_are_as_said_else_as_reckoned_else_unknown() -> None:
    link = {"between": ["a", "b"], "gbit_per_s": 10, "rtt_ms": 10}
    assert BridgeOptions.model_validate({"links": [link]}).streams_between("b", "a") == 6
    assert BridgeOptions.model_validate({"links": [link | {"streams": 3}]}).streams_between("a", "b") == 3
    assert BridgeOptions.model_validate({"links": [link | {"rtt_ms": None}]}).streams_between("a", "b") is None
    assert BridgeOptions().streams_between("a", "b") is None


def test_encryption_is_the_link_s_else_the_section_s() -> None:
    options = BridgeOptions.model_validate({"encrypt": "on", "links": [{"between": ["a", "b"], "encrypt": "off"}]})
    assert (options.encryption_between("b", "a"), options.encryption_between("a", "c")) == ("off", "on")


def test_a_link_names_its_own_codec_in_either_order() -> None:
    both = {"activation": "int8", "gradient": "bf16"}
    options = BridgeOptions.model_validate({"codec": "bf16", "links": [{"between": ["a", "b"], "codec": both}]})
    assert options.codec_between("b", "a").model_dump() == both
    assert options.codec_between("a", "c").model_dump() == {"activation": "bf16", "gradient": "bf16"}
    assert BridgeOptions().codec_between("a", "b").model_dump() == {"activation": "none", "gradient": "none"}


@pytest.mark.parametrize(
    ("activation", "gradient"), [("bf16", "int8"), ("int8", "fp8"), ("none", "bf16"), (None, "int8")]
)
def test_gradients_are_never_coarser_than_activations(activation: str | None, gradient: str) -> None:
    data = {"gradient": gradient} | ({"activation": activation} if activation else {})
    with pytest.raises(ValidationError, match=f"never sent more coarsely than activations, and {gradient}"):
        CodecOptions.model_validate(data)


@pytest.mark.parametrize(("written", "meant"), [(True, "on"), (False, "off"), ("on", "on"), ("auto", "auto")])
def test_on_and_off_are_what_yaml_makes_of_them(written: Any, meant: str) -> None:
    options = BridgeOptions.model_validate({"links": [{"between": ["a", "b"], "encrypt": written}]})
    assert options.encryption_between("a", "b") == meant
    assert BridgeOptions.model_validate({"encrypt": written}).encrypt == meant


@pytest.mark.parametrize(
    "data",
    [
        {"links": [{"between": ["a", "a"]}]},
        {"links": [{"between": ["a", "b"]}, {"between": ["b", "a"]}]},
        {"links": [{"between": ["a", "b"], "gbit_per_s": 0}]},
        {"links": [{"between": ["a", "b"], "codec": "zip"}]},
        {"codec": {"activation": "int8", "gradients": "bf16"}},
        {"transport": "carrier pigeon"},
    ],
)
def test_what_makes_no_sense_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BridgeOptions.model_validate(data)


@pytest.mark.parametrize(
    "error", [BridgeError("k", 1, "r", "m"), PeerLost("peer", "b@0", "gone", ""), PeerLost("peer")]
)
def test_an_error_travels_as_plain_data(error: BridgeError) -> None:
    back = ErrorReport.of(error).error()
    assert type(back) is type(error)
    assert (back.key, back.value, back.rule, back.remedy) == (error.key, error.value, error.rule, error.remedy)
