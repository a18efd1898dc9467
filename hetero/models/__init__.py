"""Architectures, described as units."""
