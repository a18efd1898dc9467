"""What processes of one host say to each other. Each message is a word: a frozen dataclass, and nothing else is said.

word      `Word`, `Order` and its `Answer`, and the one `encode` and `decode`
endpoint  agent to endpoint and back
port      rank to endpoint and back, by channel
channel   `ChannelSpec`: what both ends of a channel write down
error     an error as another process is told of it
frame     the wire format between endpoints
release   what both ends of a pipe say first

`hetero/words` has those between agents, fork servers and ranks.
"""
