"""Runs as Ray jobs, and their folders brought here."""
