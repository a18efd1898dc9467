"""Models as units out of parts. `registry.architecture` tells one without torch, `unit_module.build_unit` builds it.

dimensions.Dimensions  the sizes of a model
batch.Batch            what a unit's module is given of a micro-batch
options.ModelOptions   what a job says of its model
flops.masked_flops     what a causal mask leaves out
"""
