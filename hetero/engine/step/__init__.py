"""What one rank does in a step.

executor     `Executor`: its list of actions, with tensors
backward     one backward pass
evaluation   `Evaluator`: forwards alone
stage        `Stage`: what the rank holds of the model; `RankPlace`: where it stands in a plan; `place_of`, `places`
samples      `Text` of its pipeline
totals       `Totals` over all ranks
meter        `Meter`: what the step took
"""
