"""One file for each way of carrying bytes."""
