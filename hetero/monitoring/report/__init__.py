"""The report of a run: one page that holds all it shows.

page    `render`
tables  `LedgerTable`, `FlopsTable`: what only its job file and plan can tell of it
"""
