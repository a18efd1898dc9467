"""What models are made of. A part tells its tensors and its work without torch, and beside it lies its module."""
