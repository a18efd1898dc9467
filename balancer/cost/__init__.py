"""What there is to compute and to send, and how long that takes.

topology       `Topology` of `PoolSpec` and `LinkSpec`
workload       `Workload` of `UnitWork`, `TpBytes`, `GRADIENT_BYTES`
kernels        `Kernels`: what a chip's kernels lose by their shapes, as fitted over others' runs
stage_times    `stage_time` and `stage_unit_time`, with what a stage makes again; `alone_time`
times          `Times` of units, by `datasheet_times` or measured; `units_time`, `transfer_s`, `update_s` and its rate
sync_traffic   `shared_state`: the `SharedUnits` that several stages hold; `buckets` and `rounds` of them
ideal          `ideal_tokens_per_s`, which efficiency is measured against
"""
