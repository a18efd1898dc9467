"""Models as units out of parts. `registry.architecture` tells one without torch, `unit_module.build_unit` builds it.

description            what a model is made from: `Dimensions`, the sizes of a model (dimensions), or `HfModel`, a
                       config.json (hf_model)
registry.weights       where a Hugging Face directory has the model's tensors: a `WeightMap` of weight_map
megatron_names         where a checkpoint of Megatron-Core has them
stored_weights         whether a directory has them all, and no others
as_hf                  a model of our own sizes by its config.json
tuning.Tuning          what of a model trains, and the adapters beside its products, each an `adapter.Adapter`
batch.Batch            what a unit's module is given of a micro-batch
options.ModelOptions   what a job says of its model
flops.masked_flops     what a causal mask leaves out
distance, tolerance    how far apart two ways of computing a unit are, and may be: a `Tolerance`
"""
