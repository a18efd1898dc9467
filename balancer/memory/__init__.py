"""What a plan's stages need of their chips' memory.

need            `memory_need` of one stage, told apart
memory          `stage_bytes`, `saved_bytes`, `WEIGHT_BYTES`, and what the search counts units by
sync_memory     what gradients and parameters on their way keep
messages        `MESSAGES`; what messages between stages take
shadow          `shadow_place`: who computes units of other pools again, and what that takes
tied            `parameters_with_tied`: of units, with weights that lie elsewhere
communicators   `all_to_all_bytes`, for the search as well
"""
