"""A candidate beside the champion: what visitors say of both, when that tells them apart, and what follows.

duels.py     records as duels of the two
decision.py  which of them is better, if that is known
record.py    what is kept of a canary: why it ended as it did
look.py      what records say at a moment, in words
registry.py  the candidate in MLflow's registry, and how aliases move
"""
