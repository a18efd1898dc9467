"""From a job to its plan: what is measured, what is assumed, what came of it.

plan_job    `plan_job`, which gives a `Planned`; `check_written_plan`
problem     `topology`, `workload`, `legal_tp` and `problem`: the job as the balancer sees it
measuring   `measure`, before the plan, and `profile`, more of it
profile     `Profile`: what was measured
worth       `pools_worth`: what each pool adds
comparison  `PlanComparison` of two plans
chips       `identified`: a job whose chips have said what they are
links       `Probed`: links as they were measured
silence     `check_silence`: steps that would be taken for a hang
computing   `pool_work`: how a pool's computing seconds come apart, for its MFU
judging     `judge`: a run's steps beside what the plan promises
cache       `cache_folder`, where measurements are kept
"""
