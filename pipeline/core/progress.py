"""A progress bar on a terminal, and nothing in a log."""

from collections.abc import Iterable, Sized
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import track

Item = TypeVar("Item")


def shown(items: Iterable[Item], label: str, total: float | None = None) -> Iterable[Item]:
    """Return the items, with a bar on stderr while they are worked through; `total` where `items` has no length."""
    console = Console(stderr=True)
    if total is None and isinstance(items, Sized):
        total = len(items)
    return track(items, escape(label), total=total, console=console, transient=True, disable=not console.is_terminal)
