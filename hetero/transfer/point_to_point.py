"""Messages from one rank to one other: over the vendor's library inside a pool, over the bridge between pools."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from backends.backend import Backend
from bridge.codec import CODECS, NONE, Codec
from bridge.options import BridgeOptions
from bridge.port.port import Channel, Port
from bridge.rank import RankId
from bridge.words.channel import ChannelSpec
from hetero.transfer.bridge_messages import BridgeReceiver, BridgeSender
from hetero.transfer.channels import Channels
from hetero.transfer.coded import CodedReader, CodedWriter, dtype_name
from hetero.transfer.gate import Fallback, Gate
from hetero.transfer.messages import MessageSpec, Receiver, Sender
from hetero.transfer.native_messages import NativeMessages
from hetero.transfer.slot_io import PlainReader, PlainWriter, SlotReader, SlotWriter
from hetero.transfer.waits import Waits


@dataclass
class PointToPoint:
    """The ends of one rank and epoch."""

    me: RankId
    epoch: int
    backend: Backend
    port: Port
    native: NativeMessages
    waits: Waits
    options: BridgeOptions
    tell: Callable[[ChannelSpec, Fallback], None]
    """Hears where a codec lost too much."""

    def __post_init__(self) -> None:
        self._channels = Channels(self.backend, self.port)

    def close(self) -> None:
        """See Channels.close."""
        self._channels.close()

    def sender(self, message: MessageSpec, purpose: str, name: str, dtype: torch.dtype, window: int) -> Sender:
        if message.source.pool == message.target.pool:
            return self.native.sender(message.target.index)
        codec = self._codec(message, purpose, dtype)
        channel = self._open(message, purpose, name, dtype, window, codec)
        return BridgeSender(channel, self._writer(channel, message, dtype, codec), self._channels.outward, self.waits)

    def receiver(self, message: MessageSpec, purpose: str, name: str, dtype: torch.dtype, window: int) -> Receiver:
        if message.source.pool == message.target.pool:
            return self.native.receiver(message.source.index, (purpose, name), message.numel, dtype)
        codec = self._codec(message, purpose, dtype)
        channel = self._open(message, purpose, name, dtype, window, codec)
        reader: SlotReader = (
            PlainReader(channel, self.backend, dtype)
            if codec is NONE
            else CodedReader(channel, self.backend, dtype, message.numel, codec)
        )
        return BridgeReceiver(channel, reader, self.backend, self._channels.inward, self.waits)

    def _writer(self, channel: Channel, message: MessageSpec, dtype: torch.dtype, codec: Codec) -> SlotWriter:
        if codec is NONE:
            return PlainWriter(channel, self.backend, dtype)
        gate = Gate(codec, dtype_name(dtype), partial(self.tell, channel.spec))
        return CodedWriter(channel, self.backend, dtype, message.numel, gate)

    def _codec(self, message: MessageSpec, purpose: str, dtype: torch.dtype) -> Codec:
        """What the options say of the link and direction; none where that saves nothing."""
        said = self.options.codec_between(message.source.pool, message.target.pool)
        codec = CODECS[{"activation": said.activation, "gradient": said.gradient}.get(purpose, NONE.name)]
        return NONE if codec is NONE or codec.estimate_ratio(dtype_name(dtype)) == 1 else codec

    def _open(
        self, message: MessageSpec, purpose: str, name: str, dtype: torch.dtype, window: int, codec: Codec
    ) -> Channel:
        plain = message.numel * dtype.itemsize
        nbytes = plain if codec is NONE else codec.slot_bytes(message.numel, dtype_name(dtype))
        return self._channels.open(
            ChannelSpec(self.epoch, purpose, name, message.source, message.target, nbytes, window)
        )
