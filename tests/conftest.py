"""What every test stands in: quiet threads, and no setting of the surrounding shell."""

import os

from common.logs import configure_logs
from pipeline.workers.process import set_environment

set_environment()  # before PyTorch or llama.cpp is loaded
configure_logs()  # what modules say is captured with the rest of standard output
for name in ("DVC_ROOT", "DVC_EXP_NAME", "MLFLOW_TRACKING_URI"):
    os.environ.pop(name, None)
