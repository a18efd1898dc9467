"""One file for each way of carrying bytes.

transport  `Transport`, `Connection` and `FrameSink`, which are their contract; `load_transport` by scheme

`front` and `probation` bound what libraries keep for strangers, `zap` says whom ZeroMQ lets in.
"""
