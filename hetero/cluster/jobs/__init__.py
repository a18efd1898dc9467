"""Runs as Ray jobs: submitted, looked after, and their run directories brought here.

jobs.JobServer     what a cluster's job server does for us
fetch.fetch        copies a run directory
mirror.mirrored    a run directory that follows the one on the cluster
proxy              the HTTP proxy that may stand before a job server
"""
