"""To import the project changes nothing: no environment variable, no handler, no output."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Of modules without heavy libraries, which change much themselves. pipeline/stages/train.py imports those when it runs.
LIGHT = (
    "common.errors, common.files, common.logs, common.telemetry, llama.types, pipeline, pipeline.core.config, "
    "pipeline.workers.process, pipeline.workers.launcher, pipeline.tracking.run, pipeline.stages.train, pipeline.cli, "
    "pipeline.report.verdict, serve, serve.settings, serve.__main__"
)
LOOK = f"""
import os, signal, sys
before = dict(os.environ), [signal.getsignal(number) for number in signal.valid_signals()]
import {LIGHT}
after = dict(os.environ), [signal.getsignal(number) for number in signal.valid_signals()]
assert before == after, [name for name in after[0] if before[0].get(name) != after[0][name]]
assert "torch" not in sys.modules
"""


@pytest.mark.parametrize("given", [{}, {"DVC_STAGE": "train", "DVC_ROOT": "."}, {"LOCAL_RANK": "0", "RANK": "0"}])
def test_an_import_has_no_effect(given: dict[str, str]) -> None:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **given}
    done = subprocess.run([sys.executable, "-c", LOOK], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
