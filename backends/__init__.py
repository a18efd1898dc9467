"""What a chip is: its facts and how to drive it.

registry            which families there are: `find_family`, `load_backend`
backend             `Backend`: how to drive one kind of chip, with `Copy` and `Stopwatch`
chip                `ChipSpec`, read from the catalogue
communicator        `Communicator` of some chips of a pool, and its `Work`
attention_mask      `AttentionMask`: which positions attention reads
operators           `Operators` that a family may replace by its own
meta_attention      what attention keeps, seen without memory
watching.Watching   sees every operator that runs inside
emulation.Emulated  a chip that is not here; what a job says of it is in options
cpu                 the host as a chip, also for what other chips have their hosts do
probe               which chips this host has; identify, which data sheet one is of
watch.Watch         sees who waits long for another chip
versions            of what drives chips
surroundings        which environment variables matter to chips
program             how a module of ours becomes a process
sizes.size_text     bytes, as people read them
core_schema         all YAML of the program
errors              `ChipError`, `OutOfMemory`
"""
