"""The live web page of one run: a server of its own, which reads the run directory and never touches the training."""
