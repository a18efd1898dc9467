"""One file for each schedule; one that lies here is known by its name."""
