"""What the parts of models are built with: tensor-parallel groups, products, the loss, initial values."""
