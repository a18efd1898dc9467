"""What one rank does in a step."""
