"""What the shared project is prepared from: a stage refuses data that its configuration does not ask for."""

from pathlib import Path

CHATS = ["data.files=[chats.jsonl]", "data.questions=null", "data.validation=8", "data.test=8", "data.seed=0"]
# The smallest starter on these, on a CPU and told to nobody.
STARTER_S = [
    "model=starter-s",
    f"model.path={Path(__file__).parents[2] / 'starter/models/starter-s'}",
    *CHATS,
    "tracking=none",
    "runtime.device=cpu",
]
