"""What to do about a plan whose chips are not as fast as it takes them for, while its run goes on.

`speeds` hears how long stages take and says when a pool's speed has changed, `policy` decides what follows from that,
`moves` says what a change of plan costs.
"""
