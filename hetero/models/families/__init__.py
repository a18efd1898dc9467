"""One file for each type of model, named as transformers names it. Torch-free.

describe(description)  makes an Architecture out of parts; ModelError for what the family does not know of it
weights(model)         where a Hugging Face directory has its tensors
llama                  its tables of names, which most others have, too
"""
