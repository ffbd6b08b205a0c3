"""Channels as the oracle counts them: output channels of layers, in sets that are summed and go together."""

from __future__ import annotations

from .nets import OracleNet

Channel = tuple[str, int]  # layer name, output channel
ChannelSet = tuple[Channel, ...]


def channel_sets(net: OracleNet) -> list[ChannelSet]:
    """Every channel of every layer but the head, those of summed layers together."""
    summed = {name for names in net.tied for name in names}
    families = [*net.tied, *[(name,) for name in net.layers() if name not in summed]]
    return [
        tuple((name, index) for name in names) for names in families for index in range(len(net.layer(names[0]).weight))
    ]


def columns(net: OracleNet, reader: str) -> list[ChannelSet]:
    """The channel set that each input column of a layer is."""
    first = {channels[0]: channels for channels in channel_sets(net)}
    return [first[name, index] for name in net.reads[reader] for index in range(len(net.layer(name).weight))]


def family(channels: ChannelSet) -> str:
    """What the tensor is called that a set is a channel of: the first layer that adds to it."""
    return channels[0][0]
