"""The state of a run on disk: written by its owners under one plan, read under any other.

store.CheckpointStore  the checkpoints of one run
manifest.RunState      what a checkpoint knows of the run beside its tensors
pieces                 `write_piece` of an owner, `CheckpointReader` of any rank
address.StoreAddress   where a store of fsspec has it; a `Location` is a path or such an address
hf_layout.HfLayout     where every byte of a model's directory lies; torch-free, as the next
hf_directory           `HfDirectory`: what makes a checkpoint one, beside its weights
hf_weights             `write_owned`: an owner's bytes of the weights; `verify_weights`
resume.ResumePoint     where a run goes on; `split` of RUN_DIR[@STEP]
summary.Summary        what one holds, for people
adapters               low-rank ones folded into the weights
export                 `export`: one as a directory that transformers loads
imported               `import_weights`, `import_megatron`: one of what others have
megatron_folder        `MegatronFolder`: a distributed checkpoint of Megatron-Core
durable                what is written stays written; `publish`, whole or not at all
options                `CheckpointOptions` of a job
errors                 `CheckpointError`, `StorageFull`
"""
