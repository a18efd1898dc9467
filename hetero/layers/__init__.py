"""What the parts of models are built with.

group.TensorGroup  the ranks that hold one unit's tensors together
linear.Linear      a product with this rank's slice of a weight
adapter            what low-rank adapters add to a product
dispatched         products of a stack of weights, each with the tokens that a `dispatch.Dispatch` gives it
auxiliary          losses of parts, beside that of the tokens
weight_gradients   `WeightGradients`: those of products, made at once or kept back
rerun              values that backward makes again
live_bytes         `LiveBytes`: a count of the tensors that are there
frequencies        how fast the angles of positions grow, without torch
rotary             angles of positions
capped_attention   attention with a cap on its scores, or with sinks
cross_entropy      the summed loss of a cut vocabulary
sliced_loss        the same without the logits of all of it at once
spec.TensorSpec    what a logical tensor is, without torch
builder            `Builder`: how modules get their parameters; `fill`, their initial values
"""
