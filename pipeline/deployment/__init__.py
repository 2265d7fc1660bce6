"""What takes an evaluated model to where people use it: a Space, an image.

Each target is a verb of `tunesmith deploy` (pipeline/cli/deploy.py) over a `run` in pipeline/commands; what targets have
in common stands here: which model is meant (`model.py`) and what of this repository a server needs (`bundle.py`).
"""
