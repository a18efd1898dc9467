"""A run before its first step: its folders, what it resumes from, what ranks and monitoring are told of it.

refusal    `refusable`: the folders while the run lasts, as they were if it cannot be; `refuse_used`
run_dir    `new_run_dir`: a folder where none is named
claim      `held_by`: who has a folder to itself
resuming   `check_resume`, `check_text` and what a resumed run is told
spec       `run_spec`, which ranks get, and `fleet_links`
model      `checked_weights`, and what a run keeps of its model's directory
facts      `run_facts`, `tracked_run`: what monitoring needs to know
parcel     `pack`: a job with its files, for a cluster
"""
