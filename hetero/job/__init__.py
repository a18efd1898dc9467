"""The job file: every owner's options, composed and checked.

job         `Job`
file/       from YAML to a job
planning/   from a job to its plan
run/        the folder of a run
checks      what of a job no section can tell by itself; `errors`, its mistakes
judged      `ledger_table`, `flops_table`: a run that is followed against its own plan
doctor      what `hetero doctor` says of a job
"""
