"""The process of a host that talks to other hosts: between the ports of its ranks and the links to its peers.

endpoint  `Endpoint`, which obeys an agent; `python -m bridge.endpoint` runs one

Inside: `Router` knows which frame belongs to which end of a channel of a `LocalRank`, `Peers` which other endpoint is
alive, and `Dialler` how one is reached.
"""
