"""What the parts of models are built with: tensor-parallel groups, products and their weights' gradients, the loss,
initial values."""
