"""One file for each family of models: `describe(dims)` makes an Architecture out of parts. Torch-free."""
