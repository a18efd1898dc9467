"""What agents, fork servers and ranks say to each other, in words of `bridge/words`: frozen dataclasses, nothing else.

orders       what a rank is asked, each with its answer, and what it says of itself
notices      what a rank tells for the run's journal
step         the report of a step: a rank's, and a host's of all its ranks
fork_server  agent to fork server and back
"""
