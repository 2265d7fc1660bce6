"""Conversations as train, validation and test, none of which knows another.

Splits that the data set brings stay as they are, and what of train is linked to them is left out of it.
"""

from dataclasses import dataclass

from common.errors import UserError
from pipeline.core.data_settings import DataSettings
from pipeline.core.formats import Messages
from pipeline.data.components import Components
from pipeline.data.links import common, exchange_keys, letter_key, prompt_keys
from pipeline.data.own_splits import OWN
from pipeline.data.split import SPLITS, Groups, shuffled, split

Rows = dict[str, Messages]  # by a digest


@dataclass(frozen=True)
class Divided:
    """Rows by split, each in its order, and those of train that are linked to a split that was brought."""

    splits: dict[str, Rows]
    leaks: dict[str, Rows]  # by the split that they are linked to
    common_exchanges: int  # greetings and the like, which tie nothing


def divide(rows: dict[str, Rows], settings: DataSettings) -> Divided:
    """Divide those under train into the splits that are not brought.

    Raises:
        UserError: a split would be empty.
    """
    links, commons = links_of({key: row for part in rows.values() for key, row in part.items()}, settings)
    rest, leaks = rows["train"], {}
    for name in filter(rows.get, OWN):
        known = {link for key in rows[name] for link in links[key]}
        leaks[name] = {key: messages for key, messages in rest.items() if not known.isdisjoint(links[key])}
        rest = {key: messages for key, messages in rest.items() if key not in leaks[name]}
    if not rest:
        raise UserError(
            f"each of the {len(rows['train']):,} rows to train on shares a prompt or an exchange with the set's own "
            f"{' or '.join(leaks)} split; bring others, or set data.own_splits=false"
        )
    sizes = {name: 0 if name in leaks else getattr(settings, name) for name in OWN}
    tied = None if settings.leak_threshold is None else tie({key: links[key] for key in rest})
    made = split(rest, sizes["validation"], sizes["test"], settings.seed, tied)
    made |= {name: shuffled(rows[name], settings.seed) for name in leaks}
    return Divided({name: made[name] for name in SPLITS}, leaks, commons)


def links_of(rows: Rows, settings: DataSettings) -> tuple[dict[str, set[bytes]], int]:
    """Return the links of each row, and how many exchanges are too common to be one."""
    if settings.leak_threshold is None:
        return {key: {letter_key(messages)} for key, messages in rows.items()}, 0
    exchanges = {key: exchange_keys(messages) for key, messages in rows.items()}
    commons = common(exchanges.values(), len(rows))
    return {key: prompt_keys(messages) | exchanges[key] - commons for key, messages in rows.items()}, len(commons)


def tie(links: dict[str, set[bytes]]) -> Groups:
    """Return the rows that have links in common, directly or over others."""
    found = Components(links)
    found.tie_by(links.items())
    return found.groups()
