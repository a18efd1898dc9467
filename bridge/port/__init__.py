"""The rank's side of the bridge, and the pipe to its endpoint."""
