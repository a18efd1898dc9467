"""What each stage does, in order.

action     `Action`, `Kind`, `Purpose`, `Actions`; `refuse_unknown`, for whoever reads a list of them
lowering   `actions_of` a pipeline, messages included, as ranks obey them; `forward_actions_of`, `last_backwards`
registry   `schedule` by its name; a schedule is one file in `orders/`
schedule   `Schedule`, and the `MicroBatchTimes` that it is asked about
timed      `whole`, which makes a plan's ticks of seconds; the base of schedules that are made on a clock
grid       `format_grid`, for people
"""
