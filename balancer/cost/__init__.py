"""What there is to compute and to send, and how long that takes."""
