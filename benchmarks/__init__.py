"""Measurements as ratios against a peer in the same run."""

import pipeline  # noqa: F401 -- sets what OpenMP reads when PyTorch is loaded
