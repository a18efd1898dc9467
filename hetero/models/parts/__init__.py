"""What models are made of. A part tells its tensors and its work without torch, and beside it lies its module.

part                                  what a part tells
embedding, norm, attention, mlp, head  those of dense models
experts, routing, latent              experts, how tokens choose them, and latent attention
routing_module                        the `Routes` of tokens to experts
projected_module                      the module of a part that ends in a product
"""
