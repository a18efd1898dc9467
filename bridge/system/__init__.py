"""The event loop, and what Linux is asked for.

loop   `Loop` of an endpoint, one thread
awake  `AwakeClock`: time as far as this process was there to see it pass
linux  calls that Python does not wrap, or that a process makes for itself at its start
"""
