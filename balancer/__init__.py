"""Numbers in, decisions out.

problem.Problem         what a plan is wanted for
options.BalanceOptions  what a job says of it
errors.PlanError        what a plan breaks
"""
