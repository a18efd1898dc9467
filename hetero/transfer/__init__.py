"""Tensors on their way from chip to chip, by layouts and channels alone: whoever has ranks and a bridge can use it.

flow             `Flow`: tensors from one placement to another, again and again
point_to_point   `PointToPoint`, which a flow gets its messages from, and the channels below it
native_messages  `NativeMessages` of a pool's chips, and `greet`, their first contacts
rounds           `Round`: what several flows send inside a pool, as one all-to-all
messages         `Sender`, `Receiver`, `Destination`, `MessageSpec`: a message and its two ends
bridge_messages  `BridgeSender`, `BridgeReceiver` over a channel; `slot_io`, how tensors get into its slots
coded, gate      messages through a codec, and the `Fallback` of one that lost too much
channels         `Channels` with pinned slots, for messages that no flow sends
waits            `Waits` of a rank, and what has `Crossed` the bridge
"""
