"""The best plan for a problem, and what is said about the choice.

search       `search`, which gives the best plan, its prediction, why others lost, and a certificate
reasons      `Loss`: what another plan loses
certificate  `Certificate` and `SpaceSizes`: how good a plan is known to be
cut          `cut`, the exact cut of stages whose costs are given
ledger       `ledger` and `efficiency` of a prediction: where the speed goes
missed       `MeasuredStep` and `MeasuredStage`, by which a ledger names what its prediction missed
pool_ledger  `pool_ledgers`: where each pool's own time went
shares       `shares`, how many micro-batches each pipeline takes
"""
