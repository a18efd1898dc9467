"""What agents, nurseries and ranks say to each other, in words of `bridge/words`, and what these hold. Torch-free.

orders   what a rank is asked, each with its answer, and what it says unasked
spec     what a rank is told of an epoch, and of a calibration
pool     what a pool is, for all who need no more of it
piece    a rank's entry of a checkpoint's manifest
options  how to train, as the job file says it and ranks obey it
step     the report of a step: a rank's, and a host's of all its ranks
nursery  agent to nursery and back
"""
