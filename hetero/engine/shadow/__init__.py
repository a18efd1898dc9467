"""A little of a step, computed again by a chip of another pool.

shadow     `Shadow` of a rank: all that it has to do with it
turn       which micro-batch of which stage a step has computed again
recording  what the stage is given, and gives
cargo      what crosses for a unit of it
again      a unit, computed again
"""
