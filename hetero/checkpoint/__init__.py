"""The state of a run on disk: written by its owners under one plan, read under any other."""
