"""The job file: every owner's options, composed and checked."""
