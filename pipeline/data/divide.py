"""Conversations as train, validation and test, none of which knows another.

Splits that the data set brings stay as they are, and what of train is linked to them is left out of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from common.errors import UserError
from pipeline.core.data_settings import DataSettings
from pipeline.core.formats import Messages
from pipeline.data.links import links
from pipeline.data.own_splits import OWN
from pipeline.data.split import SPLITS, shuffled, split

Rows = dict[str, Messages]  # by a digest


@dataclass(frozen=True)
class Divided:
    """Rows by split, each in its order, and those of train that are linked to a split that was brought."""

    splits: dict[str, Rows]
    leaks: dict[str, Rows] = field(default_factory=dict)  # by the split that they are linked to


def divide(rows: dict[str, Rows], settings: DataSettings) -> Divided:
    """Divide those under train into the splits that are not brought.

    Raises:
        UserError: a split would be empty.
    """
    brought = {name: rows[name] for name in OWN if name in rows}
    rest, leaks = rows["train"], {}
    for name in brought:
        leaks[name] = linked_rows(rest, brought[name].values())
        rest = {key: messages for key, messages in rest.items() if key not in leaks[name]}
    if not rest:
        raise UserError(
            f"each of the {len(rows['train']):,} rows to train on shares a prompt or an exchange with the set's own "
            f"{' or '.join(brought)} split; bring others, or set data.own_splits=false"
        )
    sizes = {name: 0 if name in brought else getattr(settings, name) for name in OWN}
    made = split(rest, sizes["validation"], sizes["test"], settings.seed)
    made |= {name: shuffled(part, settings.seed) for name, part in brought.items()}
    return Divided({name: made[name] for name in SPLITS}, leaks)


def linked_rows(rows: Rows, others: Iterable[Messages]) -> Rows:
    """Return the rows that share a link with one of the others."""
    known = {link for messages in others for link in links(messages)}
    return {key: messages for key, messages in rows.items() if not known.isdisjoint(links(messages))}
