"""What a run has learnt, as its ranks hold it.

state.State   a rank's values, masters and moments, by logical tensor
origin.begin  fills one for an epoch, from initial values or a checkpoint; `live.LiveMove` from another plan's ranks
moving.Movement    tensors that go from rank to rank once
ownership     who holds, and who owns, each tensor under a plan
update.StepUpdate  what ends a step: all of it in its order
sync          gradients to owners; `parameter_return` back again, while the next step begins
host_update   masters and moments in host memory: updated there, beside the chip
optimizer, loss_scale, replicas, saving: the rule, its scale, the proof that copies are equal, a rank's piece
"""
