"""One file for each tool that curves go to."""
