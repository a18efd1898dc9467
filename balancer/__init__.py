"""Numbers in, decisions out."""
