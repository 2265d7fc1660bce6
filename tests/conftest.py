"""What every test stands in: quiet threads, and no setting of the surrounding shell."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # before PyTorch or llama.cpp is loaded
for name in ("DVC_ROOT", "DVC_EXP_NAME", "MLFLOW_TRACKING_URI"):
    os.environ.pop(name, None)
