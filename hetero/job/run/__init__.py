"""A run's folder: who holds it, what is refused, what it resumes from."""
