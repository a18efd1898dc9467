"""A step in simulated time.

simulate     `simulate` a plan, which gives a `Prediction`; `run` a `Scenario`, where links may be free
prediction   `Prediction`, by place; scenario, `Scenario`
band         `Band`, between which seconds a step lies; replay, a prediction's actions with other seconds
alike        `Alike`: which pipelines go through a step in the same way, so that one is simulated
computation  `Computation`: the lists of pipelines on a clock; links, what their messages wait for
beginning    `Beginning`, how late a step begins while parameters return: `ReturnTiming`, `HostTiming`
band         `band`: between which seconds a step lies
shadow       `shadow_s`: how long a stage takes that is computed again
sync         `SyncTiming` of gradients; `expected_sync_s`, before there is a plan
"""
