"""What a run has learnt, as its ranks hold it: `State`, and `begin`, which fills one for an epoch."""
