"""The process of a host that talks to other hosts: between the ports of its ranks and the links to its peers.

endpoint  `Endpoint`, which obeys an agent; `python -m bridge.endpoint` runs one

Inside: `Router` knows which frame belongs to which end of a channel, `Peers` which endpoint is reached how.
"""
