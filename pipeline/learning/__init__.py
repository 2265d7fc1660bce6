"""What visitors said, as data to learn from: who said what, what of it stands, and what is held out for judging.

statements.py  records as statements: a pair of answers, or one with a label
standing.py    which of them stand: agreement, near-duplicates, a visitor's share
divide.py      splits that no visitor and no conversation is in twice
write.py       data/feedback, with its manifest
report.py      who said what how often, and what was left out
"""
