"""Ray: a runtime of our own or a cluster's, its actors, its reservations."""
