"""What lies between two endpoints: streams of frames, their clock and their pace."""
