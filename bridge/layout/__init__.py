"""How ranks hold a tensor, and from any layout to any other."""
