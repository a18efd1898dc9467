"""The `bridge:` section of a job file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from bridge.codec import CODECS
from bridge.link.stream_count import streams_to_fill
from bridge.words.channel import SYNC_BUCKET_BYTES
from bridge.words.endpoint import MOST_STREAMS

TransportName = Literal["auto", "zmq", "grpc", "shm"]
CodecName = Literal["none", "bf16", "int8", "fp8"]


def _as_written(value: Any) -> Any:
    """`true` and `false` say it too."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


Encryption = Annotated[Literal["auto", "on", "off"], BeforeValidator(_as_written)]


class CodecOptions(BaseModel):
    """How stage boundaries cross a link. One name alone stands for both directions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    activation: CodecName = Field("none", description="Codec of the forward's tensors; `none` sends them as they are.")
    gradient: CodecName = Field(
        "none", description="Codec of the backward's tensors, never coarser than that of the forward's."
    )

    @model_validator(mode="before")
    @classmethod
    def _one_for_both(cls, value: Any) -> Any:
        return {"activation": value, "gradient": value} if isinstance(value, str) else value

    @field_validator("gradient")
    @classmethod
    def _gradients_are_finer(cls, value: str, info: ValidationInfo) -> str:
        activation = info.data.get("activation")
        if activation is not None and CODECS[value].is_coarser(CODECS[activation]):
            fine = [name for name, codec in CODECS.items() if not codec.is_coarser(CODECS[activation])]
            rule = f"gradients are never sent more coarsely than activations, and {value} is coarser than {activation}"
            raise ValueError(f"{rule}: set gradient to {' or '.join(fine)}, or activation to {value}")
        return value


class LinkOptions(BaseModel):
    """The network between two pools: what a planner reckons with, and emulated pools are held to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    between: tuple[str, str] = Field(description="Two pools, in either order.")
    transport: TransportName = Field(
        "auto", description="How this link's bytes are carried; `auto` takes the section's."
    )
    gbit_per_s: float | None = Field(
        default=None,
        gt=0,
        description="Rate of each direction, in Gbit/s; `null` is unlimited between emulated pools, else measured.",
    )
    rtt_ms: float | None = Field(
        default=None, ge=0, description="Round trip, in ms; `null` is none between emulated pools, else measured."
    )
    encrypt: Encryption | None = Field(None, description="Whether frames are encrypted; `null` takes the section's.")
    streams: Literal["auto"] | Annotated[int, Field(ge=1, le=MOST_STREAMS)] = Field(
        "auto",
        description="Connections side by side; `auto`: as fill the link, by rate and round trip if given, else tried.",
    )
    codec: CodecOptions | None = Field(
        None, description="How boundary tensors are packed on this link; `null` takes the section's."
    )

    @field_validator("between")
    @classmethod
    def _two_pools(cls, value: tuple[str, str]) -> tuple[str, str]:
        if value[0] == value[1]:
            raise ValueError("a link is between two different pools")
        return value

    @model_validator(mode="after")
    def _shm_is_not_encrypted(self) -> LinkOptions:
        _refuse_hidden_memory(self.transport, self.encrypt)
        return self


def _refuse_hidden_memory(transport: str, encrypt: str | None) -> None:
    if transport == "shm" and encrypt == "on":
        raise ValueError(
            "shm leaves bytes where they are, and cannot encrypt them: set transport to zmq or encrypt to off"
        )


class BridgeOptions(BaseModel):
    """`transport` and `codec` hold for every link that names none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    transport: TransportName = Field(
        "auto", description="For links that name none; `auto` is shm between hosts that are one machine, else zmq."
    )
    encrypt: Encryption = Field(
        "auto", description="For links that say nothing; `auto` encrypts unless both hosts are one machine."
    )
    codec: CodecOptions = Field(
        CodecOptions(), description="For links that name none: one name, or one for each direction."
    )
    links: tuple[LinkOptions, ...] = Field((), description="What is known of each link, and how to use it.")
    sync_bucket_mib: float = Field(
        SYNC_BUCKET_BYTES / 2**20,
        gt=0,
        description="Gradients are sent on as soon as so much of them is complete; a unit stays whole.",
    )

    @field_validator("links")
    @classmethod
    def _each_pair_once(cls, value: tuple[LinkOptions, ...]) -> tuple[LinkOptions, ...]:
        pairs = [frozenset(link.between) for link in value]
        if twice := next((pair for pair in pairs if pairs.count(pair) > 1), None):
            raise ValueError(f"the link between {' and '.join(sorted(twice))} is given twice")
        return value

    @model_validator(mode="after")
    def _shm_is_not_encrypted(self) -> BridgeOptions:
        _refuse_hidden_memory(self.transport, self.encrypt)
        for a, b in (link.between for link in self.links):
            _refuse_hidden_memory(self.transport_between(a, b), self.encryption_between(a, b))
        return self

    def link(self, a: str, b: str) -> LinkOptions:
        """What is said about the link between two pools, in either order; defaults if nothing is."""
        found = (link for link in self.links if set(link.between) == {a, b})
        return next(found, None) or LinkOptions(between=(a, b))

    def transport_between(self, a: str, b: str) -> str:
        """URI scheme of a link: its own, else the section's, else auto."""
        named = (self.link(a, b).transport, self.transport)
        return next((name for name in named if name != "auto"), "auto")

    def encryption_between(self, a: str, b: str) -> str:
        """on, off or auto: a link's own, else the section's."""
        return self.link(a, b).encrypt or self.encrypt

    def streams_between(self, a: str, b: str) -> int | None:
        """How many streams a link has: as many as is said, else as fill it; None if too little is known of it."""
        link = self.link(a, b)
        if link.streams != "auto":
            return link.streams
        if link.gbit_per_s is None or link.rtt_ms is None:
            return None
        return streams_to_fill(link.gbit_per_s * 1e9 / 8, link.rtt_ms / 1e3)

    @property
    def sync_bucket_bytes(self) -> int:
        return round(self.sync_bucket_mib * 2**20)

    def codecs_between(self, a: str, b: str) -> tuple[str, str]:
        """Their names: of what goes forward, and of what comes back."""
        said = self.codec_between(a, b)
        return said.activation, said.gradient

    def codec_between(self, a: str, b: str) -> CodecOptions:
        """The codecs of a link: its own, else the section's."""
        return self.link(a, b).codec or self.codec
