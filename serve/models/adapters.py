"""Which model an adapter is for: told by what both files say of where they come from, by names, by tensors."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from common.errors import UserError
from llama.header import Header
from llama.lora import Lora

LINEAGE = "tunesmith.lineage"  # that the pipeline's export writes into its files


def find_base(lora: Lora, header: Header, bases: Mapping[str, tuple[Path, Header]], wanted: str = "") -> str:
    """Return the name of the model that an adapter is for.

    Args:
        lora: the adapter.
        header: of its file.
        bases: path and header of each model that answers, by name.
        wanted: the one to take where several would do, as SERVE_BASE has it; empty for none.

    Raises UserError where there is none, or more than one.
    """
    misfits = {name: lora.misfit(base) for name, (_, base) in bases.items()}
    fitting = [name for name, misfit in misfits.items() if misfit is None]
    if not fitting:
        reasons = [f"for {name} it {misfit}" for name, misfit in misfits.items()]
        raise UserError(f"{lora.path} is an adapter without its base: {'; '.join(reasons[:2]) or 'there is no model'}")
    found = [name for name in fitting if _same_origin(header, bases[name][1]) is not False]
    if not found:
        raise UserError(f"{lora.path} is an adapter without its base: it was trained on another one than {fitting[0]}")
    found = [name for name in found if _same_origin(header, bases[name][1])] or found
    found = [name for name in found if _named(header) & _names(*bases[name])] or found
    if wanted in found:
        return wanted
    if len(found) > 1:
        raise UserError(f"{lora.path} is an adapter for any of {', '.join(found)}: name one of them in SERVE_BASE")
    return found[0]


def _same_origin(adapter: Header, base: Header) -> bool | None:
    """Return whether both files' lineages name the same base; None where one of them has none."""
    origins = [_origin(header) for header in (adapter, base)]
    if not all(origins):
        return None
    (_, trained_on), (of, digest) = (origin for origin in origins if origin)
    return of == "base" and digest == trained_on


def _origin(header: Header) -> tuple[str, str] | None:
    """Return what a file of the pipeline holds (tuned, base, adapter), and its base's digest."""
    try:
        lineage = json.loads(str(header.keys.get(LINEAGE)))
        return str(lineage["of"]), str(lineage["base"]["digest"])
    except (ValueError, TypeError, KeyError):
        return None


def _named(header: Header) -> set[str]:
    """Return what an adapter calls its base."""
    keys = ("general.base_model.0.name", "general.base_model.0.repo_url")
    return {_plain(str(header.keys[key]).rpartition("/")[2]) for key in keys if key in header.keys}


def _names(path: Path, header: Header) -> set[str]:
    """Return what a model is called: by itself, and by its file with and without the type at its end."""
    stem = path.stem
    return {_plain(name) for name in (str(header.keys.get("general.name", "")), stem, stem.rpartition("-")[0])}


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()
