"""Ray: a runtime of our own or a cluster's, its actors, its reservations.

runtime.ray_runtime   Ray is up for so long
actors.ray_agents     agents for a fleet, in places that are theirs
shared_files.Needs    what every host must have before its ranks start
standing.standing     a fleet that stands ready for what is no run
chips.ask_joined      what the chips of a cluster say of themselves
reservation.nodes     the nodes of a joined cluster
standing              hosts that stand ready to be measured
environment           what Ray reads from it
metrics.RayMetrics    a run's figures among Ray's own
"""
