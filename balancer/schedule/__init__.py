"""What each stage does, in order.

action      `Action`, `Kind`, `Purpose`, `Actions`; `refuse_unknown`, for whoever reads a list of them
lowering    `actions_of` a pipeline, messages included, as ranks obey them; `forward_actions_of`, `last_backwards`
registry    `schedule` by its name; a schedule is one file in `orders/`
schedule    `Schedule`, and the `MicroBatchTimes` that it is asked about
timed       `ticks_of_seconds`, which makes a plan's ticks of seconds; the base of schedules that are made on a clock
consistency lists hold together: `check_backwards`, which a reader of one list may ask too
grid        `format_grid`, for people
"""
