"""A step in simulated time.

simulate   `simulate` a plan, which gives a `Prediction`; `run` a `Scenario`, where links may be free
beginning  `Beginning`, how late a step begins while parameters return
sync       `expected_sync_s`, before there is a plan
"""
