"""From a YAML file to a checked job, or to one error that says where and what to do.

load        `load_job`; `mistakes_located`, for what is found out about it later
plan_file   `read_plan`
variants    `variants` of a job, with other values at some keys
"""
