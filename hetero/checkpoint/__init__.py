"""State on disk, by unit and logical tensor."""
