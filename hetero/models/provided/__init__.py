"""Models on transformers' own modules: those of no family of ours whose configuration says how they are cut.

told         what is known of such a model, as plain data
asking       `told_of`: where that comes from: a process apart that has torch and transformers, or what it found before
described    `describe`: a model's modules, on no device, looked into
documents    whether documents of one sample are apart in it
model        the architecture and the map of weights that follow
part         what a unit of such a model tells; unit_modules has what it computes with, and calls what layers are given
"""
