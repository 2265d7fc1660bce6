"""The stages of Tunesmith: compose, prepare, train, export, evaluate."""

import os

# OpenMP's threads spin while they wait; beside any other busy process that made training on two cores 3 times slower.
# Read when PyTorch or llama.cpp is loaded, so it has to be set before.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
