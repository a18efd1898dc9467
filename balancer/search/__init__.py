"""The best plan for a problem, and what is said about the choice.

search   `search`, which gives the best plan, its prediction, and why others lost
cut      `cut`: which consecutive units each stage gets
ledger   `ledger` and `efficiency` of a prediction: where the speed goes
"""
