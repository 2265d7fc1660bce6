"""Measuring each model until every gate that needs it is decided, or its rows and questions run out.

Models are measured one after the other, on the first so many rows; then gates are looked at, and what is still
undecided asks for more. The gates decide how much is measured, never what a row gives.
"""

import logging
from collections.abc import Callable, Iterable

from common.words import counted
from pipeline.evaluation.inputs import Extent, Material
from pipeline.evaluation.measure import Measured
from pipeline.report.gates import Gate, gates
from pipeline.report.rows import RowResults

logger = logging.getLogger(__name__)


def measure_until_decided(
    names: Iterable[str],
    measure: Callable[[str, Extent], Measured],
    results: Callable[[dict[str, Measured]], RowResults],
    material: Material,
) -> dict[str, Measured]:
    """Return what was found of each model.

    Args:
        names: of the models, in the order in which they are measured.
        measure: measures one as far as it is told, or reads what was measured before.
        results: says of each row what was found.
        material: what they are measured on, and by which settings.
    """
    found: dict[str, Measured] = {}
    wanted = dict.fromkeys(names, first_extent(material))
    while behind := [name for name in wanted if name not in found or _extent(found[name]) != wanted[name]]:
        for name in behind:
            found[name] = measure(name, wanted[name])
        undecided = [gate for gate in gates(results(found), material.settings.gate) if gate.wanted]
        for gate in undecided:
            logger.info(f"{gate.name}: not decided by {counted(gate.have, gate.of)}; going on to {gate.wanted:,}")
        wanted = {name: _further(wanted[name], name, undecided) for name in wanted}
    return found


def first_extent(material: Material) -> Extent:
    """Return how much of it every model is measured on: as much as a verdict takes, or all."""
    rows, questions, settings = len(material.conversations), len(material.questions), material.settings
    if not settings.stop_when_sure:
        return Extent(rows, questions)
    return Extent(min(rows, settings.gate.min_rows), min(questions, settings.gate.min_questions))


def _extent(found: Measured) -> Extent:
    return Extent(len(found["nats"]), len(found["replies"]))


def _further(extent: Extent, name: str, undecided: Iterable[Gate]) -> Extent:
    """Return how far the gates that need a model want it measured."""
    rows, questions = extent
    for gate in undecided:
        if name in gate.models and gate.wanted:
            if gate.of == "question":
                questions = max(questions, gate.wanted)
            else:
                rows = max(rows, gate.wanted)
    return Extent(rows, questions)
