"""What a plan's stages need of their chips' memory."""
