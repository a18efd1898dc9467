"""What a run writes down and shows.

record               `merge_ranks` on a host, a `Recorder` on the driver: from the reports of ranks to a line of metrics
metrics_line         `MetricsLine`, which the one writes and views read; `bounds` of its numbers
notice.Notice        what becomes an event of the journal
journal              `Journal` of metrics, `EventJournal`
trace.Trace          the actions of traced steps; timeline, the last of them; predicted_trace, of a plan
monitor.Monitor      all that looks on: trackers, Prometheus, alerts; tracked.TrackedRun, what it knows beforehand
waterfall            a pool's MFU as a product of `Term`s
skips, memory        updates skipped in a row, and chips that hold other than planned
progress, top        what a terminal shows of a run, while it trains and from outside
follow.Follower      a run directory, read while it is written, as far as `shapes` go; status, what views make of it
links                what crosses between pools
environment          what a run was made with
prometheus, tracker  the metrics that are served, and which trackers there are
options, errors      `MonitorOptions` of a job, `MonitorError`
"""
