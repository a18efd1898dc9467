"""Documents as tokens, made once and kept.

prepare  `prepare_documents` makes those of all sources, or finds them
making   `Making` of one source, and how far it is: `MakingProgress`, `Tell`
packing  `Packed`: documents as samples
files    `DocumentFiles`: what they lie in
"""
