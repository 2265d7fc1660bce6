"""Measurements as ratios against a peer in the same run."""

from common.logs import configure_logs
from pipeline.workers.process import set_environment

set_environment()  # each is a program, and most load PyTorch
configure_logs()
