"""The rank's side of the bridge, and what it shares with its endpoint.

port     `Port`, its `Channel`s, and a `Ticket` for each message under way
pipe     `Pipe`: a socket for words between two processes of one host
slots    `SlotRing`: memory for messages that both see
copying  `copy` within memory, by two threads where that pays
"""
