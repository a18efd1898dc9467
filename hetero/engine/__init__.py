"""One rank: its life, its pool's world, and what a plan makes of it.

rank         its life, from order to order: the process's main
fork_server  where ranks come from
world, mesh  the pool's process groups, and the connections between its ranks
epoch        everything that a plan decides, made and used
wiring       what a plan connects: groups, holders of tensors, flows over boundaries
calibration  with trial, passes, repeats and products: what units take on the chips; expected: what an emulated one is
             told to take
rates        what chips do in a second of what units are made of
state/       what it has learnt
step/        what it does in a step
shadow/      what of a step is computed again by another pool
"""
