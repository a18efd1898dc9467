"""The plan, as it is written and read.

plan        `Plan`, `PipelinePlan`, `StagePlan`, `Chunk`; `Place`, which is a pipeline and a stage; `stage_ranks`
recompute   `Recompute`, of a unit of a stage
equal       `equal_pipelines` and `alike`: what is shown once
"""
