"""A step in simulated time.

simulate   `simulate` a plan, which gives a `Prediction`; `run` a `Scenario`, where links may be free
sync       `expected_sync_s`, before there is a plan
"""
