"""Measurements: those that the README quotes, and more."""
