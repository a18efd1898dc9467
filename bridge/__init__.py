"""How bytes cross between vendors."""
