"""What agents, fork servers and ranks say to each other, in words of `bridge/words`, and what these hold. Torch-free.

orders       what a rank is asked, each with its answer, and what it says of itself
notices      what a rank tells for the run's journal
step         the report of a step: a rank's, and a host's of all its ranks
spec         what a rank is told of an epoch, and of a calibration
pool         what a pool is, for all who need no more of it
piece        a rank's entry of a checkpoint's manifest
options      how to train, as the job file says it and ranks obey it
fork_server  agent to fork server and back
"""
