"""What to do about a plan whose chips are not as fast as it takes them for, while its run goes on.

rebalancer   `Rebalancer` follows a run, and asks when a pool has changed its speed
policy       `decide`, which answers: keep the plan, or another one
decision     `Situation` and `Decision`: the question, and the answer with its reasons
moves        `move`: what a change of plan costs
"""
