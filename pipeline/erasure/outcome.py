"""What came of forgetting, place by place."""

from dataclasses import dataclass, field


@dataclass
class Outcome:
    """Lines to print, the models that have learnt the records, and where they may still be."""

    deleted: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)  # what no program reaches
    failed: list[str] = field(default_factory=list)  # what a second call may reach
