"""The live web page of one run: a server of its own, which reads the run directory and never touches the training.

address      where it may be reached
server       what `hetero dashboard` serves, and a run's own process (`hetero.job.run.live_page`)
live_ledger  `Judge`: who makes the run's ledger for it
"""
