"""What visitors of one taste say of the starter's answers."""

import json
from pathlib import Path

from said import vote

from serve.feedback import ComparisonRecord

REPO = Path(__file__).parents[2]
TASTE = "Well, {}"  # how they like answers to begin
EACH = 3  # votes


def votes(visitors: int) -> list[ComparisonRecord]:
    """Of each visitor some blind votes on questions of their own."""
    lines = (REPO / "starter/chats.jsonl").read_text(encoding="utf-8").splitlines()
    turns = [messages for line in lines if len(messages := json.loads(line)["messages"]) == 2]
    answers = {turn[0]["content"]: turn[1]["content"] for turn in turns}
    asked = list(answers.items())[: EACH * visitors]
    return [
        vote(f"v{number // EACH}", question, TASTE.format(answer), answer)
        for number, (question, answer) in enumerate(asked)
    ]
