"""The stages of Tunesmith: compose, prepare, train, export, evaluate."""

import os

from pipeline.lifeline import die_with_parent

# OpenMP's threads spin while they wait for one another. Seconds a training step of starter-m on two cores, idle and
# beside one busy process: 0.50 and 1.55 with the default's long spin, 0.53 and 0.98 with this, 0.68 and 0.90 with none.
# It is read when PyTorch or llama.cpp is loaded, so it has to be set before.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# Here, as the imports of a stage take seconds in which DVC may be killed.
die_with_parent()
