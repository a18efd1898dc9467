"""What is on this host and on a cluster, and what of it stands in a run's way."""
