"""How bytes cross between vendors.

rank.RankId            a chip of a pool, by number
precision              what crosses between two precisions
codec                  `Codec`, `CODECS`: fewer bytes, at a known loss
options.BridgeOptions  what a job says of links
errors                 `BridgeError` and its kinds
"""
