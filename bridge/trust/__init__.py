"""How two endpoints come to trust each other, and what makes their bytes trustworthy.

identity     `Identity`, an endpoint's key pair and the secrets that it shares; `fingerprint` for people
credentials  `Admission`: what diallers show before they are given a connection
handshake    `Handshakes`: HELLO and READY in both directions
hello        `Hello`: who speaks, and where the two stand
seal         `Seal` of every frame of a connection: `Unchecked`, `Checked` or `Encrypted`
"""
