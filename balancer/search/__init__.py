"""The best plan for a problem, and what is said about the choice.

search       `search`, which gives the best plan, its prediction, why others lost, and a certificate
reasons      `Loss`: what another plan loses
certificate  `Certificate` and `SpaceSizes`: how good a plan is known to be
cut          `cut`, the exact cut of stages whose costs are given
ledger       `ledger` and `efficiency` of a prediction: where the speed goes; pool_ledger, that of each pool
missed       `MeasuredStep`: what a prediction missed, by its causes
"""
