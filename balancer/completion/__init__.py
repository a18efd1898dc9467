"""What a plan leaves open, what makes it illegal, and which chips it leaves idle.

completion   `complete` a plan: chips, warm-ups, owners; `predict` the step of one that is open
idle         `idle_chips`, each an `Idle` with its reason
legality     what `complete` refuses
"""
