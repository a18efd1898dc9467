"""How ranks hold a tensor, and from any layout to any other.

`axes.Axes`: the named axes along which a stage's ranks lie: position, coordinates, groups
`layout.TensorLayout`: a box of the tensor, or nothing, for each position; `Region` is a box, `LayoutError` a refusal
`reshard.Placement`: a layout on named ranks; `Box` is what one of them holds
`reshard.reshard`, `reshard.copies`: the way of a tensor that moves every step, as `Piece`s, with `Gather`s or without
`reshard.relocate`: the way of state that moves once
"""
