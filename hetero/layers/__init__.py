"""The tensor-parallel modules that models are made of."""
