"""A run beside its steps: its folders, what it resumes from, what ranks and monitoring are told of it, and which plans
it goes on under.

refusal    `refusable`: the folders while the run lasts, as they were if it cannot be; `refuse_used`
claim      `held_by`: who has a folder to itself
resuming   `check_resume`, `check_text` and what a resumed run is told
spec       `run_spec`, which ranks get, and `fleet_links`
model      `checked_weights`, and what a run keeps of its model's directory
facts      `run_facts`, `tracked_run`: what monitoring needs to know
checkpoints  `RunCheckpoints`: where they go, what each keeps, which is good
epochs     `RunEpochs`: what goes with a plan, and the way to the next
proposals  `Proposals`: which plan comes next, and who wants it; `live_balance`: the balancer, which may
replan_request  how a person asks: `leave`, `withdraw`
kept_plans `keep_plan`: the plans in its folder
live_page  `dashboard`: its own process, which serves the page
parcel     `pack`: a job with its files, for a cluster
"""
