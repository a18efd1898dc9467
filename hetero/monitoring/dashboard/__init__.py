"""The live web page of one run: a server of its own, which reads the run directory and never touches the training.

process.dashboard  the server, as a process of the run
address            where it may be reached
server             what `hetero dashboard` serves
"""
