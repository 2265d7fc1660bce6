"""The table of benchmarks/halving.py: what each search found in R5's space, and for how many steps."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmarks.halving_searches import Seed
from benchmarks.train import installed

PACKAGES = ("torch", "transformers", "trl", "peft", "optuna", "ray")
MOST_STEPS, FARTHEST = 0.32, 0.01  # of the grid's steps; of its best loss, above it
NAMES = {
    "ours": "ours, a sweep that ran; twins are trained once",
    "optuna": "Optuna, SuccessiveHalvingPruner",
    "optuna at our steps": "the same, ended at our steps",
    "asha": "Ray Tune, ASHAScheduler",
    "asha at our steps": "the same, ended at our steps",
}


@dataclass(frozen=True)
class Means:
    """A search's figures over the seeds."""

    above_best: float  # share of the grid's best loss
    farthest_above_best: float
    steps: float
    steps_once: float
    share_of_plain: float
    share_of_distinct: float


@dataclass(frozen=True)
class Report:
    """All that was measured: benchmarks/results/halving.json."""

    date: str
    packages: dict[str, str]
    overrides: list[str]
    seeds: list[Seed]
    searches: dict[str, Means]
    goals: dict[str, bool]


def report(seeds: Sequence[Seed], overrides: Sequence[str]) -> Report:
    """Return all that was measured, with its means."""
    return Report(
        date=time.strftime("%Y-%m-%d"),
        packages=installed(PACKAGES),
        overrides=list(overrides),
        seeds=list(seeds),
        searches={name: means(seeds, name) for name in NAMES if all(name in seed.searches for seed in seeds)},
        goals=goals(seeds),
    )


def means(seeds: Sequence[Seed], name: str) -> Means:
    """Return a search's figures over the seeds."""
    found = [seed.searches[name] for seed in seeds]
    far = [distance(seed, name) for seed in seeds]
    return Means(
        above_best=fmean(far),
        farthest_above_best=max(far),
        steps=fmean(search.steps for search in found),
        steps_once=fmean(search.steps_once for search in found),
        share_of_plain=fmean(one.steps / seed.plain_steps for one, seed in zip(found, seeds, strict=True)),
        share_of_distinct=fmean(one.steps_once / seed.distinct_steps for one, seed in zip(found, seeds, strict=True)),
    )


def distance(seed: Seed, name: str) -> float:
    """Return how far above the grid's best loss a search's is, as a share of it; 1 where it has found nothing."""
    loss = seed.searches[name].loss
    return 1.0 if loss is None else loss / seed.best - 1


def goals(seeds: Sequence[Seed]) -> dict[str, bool]:
    """Return which of the goals are met, each in every seed or on the mean as it says."""
    ours = means(seeds, "ours")
    peers = [means(seeds, name) for name in ("optuna", "asha") if name in seeds[0].searches]
    return {
        "at most 32% of the steps of the plain grid, in every seed": all(
            seed.searches["ours"].steps <= MOST_STEPS * seed.plain_steps for seed in seeds
        ),
        "at most 32% of the steps of a grid that trains twins once, in every seed": all(
            seed.searches["ours"].steps <= MOST_STEPS * seed.distinct_steps for seed in seeds
        ),
        "the winner within 1% of the grid's best loss, in every seed": all(
            distance(seed, "ours") <= FARTHEST for seed in seeds
        ),
        "no worse in loss than each peer, on the mean": all(ours.above_best <= p.above_best for p in peers),
        "no more steps than each peer, twins counted once, on the mean": all(
            ours.steps_once <= p.steps_once for p in peers
        ),
        "the losses of the sweep are the grid's, to the bit": all(seed.equal == seed.checked for seed in seeds),
    }


def table(made: Report) -> str:
    """Return the figures as Markdown."""
    first = made.seeds[0]
    over = f" {' '.join(made.overrides)}." if made.overrides else ""
    versions = ", ".join(f"{name} {version}" for name, version in made.packages.items())
    lines = [
        f"# Successive halving over R5's space on starter-s, {len(made.seeds)} seeds",
        "",
        f"{made.date}; the table by {versions}.{over}",
        "",
        f"{first.trials} trials, {first.distinct} of them distinct trainings, as batch times accumulation is "
        f"what an update learns from. The plain grid takes {first.plain_steps:,} steps, one that trains twins once "
        f"{first.distinct_steps:,}. The grid and the sweep of ours were trained; the peers' own code decided over "
        "the losses of the grid, one trial after another in a seeded order, and is charged for what it asked to train.",
        "",
        "| search | loss above the grid's best, mean | worst seed | steps | of the plain grid | steps, twins once | "
        "of the distinct grid |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, each in made.searches.items():
        lines.append(
            f"| {NAMES[name]} | {each.above_best:.2%} | {each.farthest_above_best:.2%} | {each.steps:,.0f} | "
            f"{each.share_of_plain:.1%} | {each.steps_once:,.0f} | {each.share_of_distinct:.1%} |"
        )
    lines += ["", *by_seed(made), "", *checks(made)]
    return "\n".join(lines) + "\n"


def by_seed(made: Report) -> list[str]:
    """Return each seed's losses and steps."""
    names = list(made.searches)
    lines = [
        "Loss, and steps with twins counted once:",
        "",
        f"| seed | grid's best | {' | '.join(names)} |",
        f"|--:|--:|{'--:|' * len(names)}",
    ]
    for seed in made.seeds:
        found = [seed.searches[name] for name in names]
        cells = [f"{loss_text(search.loss)}, {search.steps_once:,}" for search in found]
        lines.append(f"| {seed.seed} | {seed.best:.4f} | {' | '.join(cells)} |")
    return lines


def loss_text(loss: float | None) -> str:
    """Return a loss, or that there is none."""
    return "none" if loss is None else f"{loss:.4f}"


def checks(made: Report) -> list[str]:
    """Return what was checked, and the goals."""
    checked, equal = sum(seed.checked for seed in made.seeds), sum(seed.equal for seed in made.seeds)
    farthest = max(seed.largest_difference for seed in made.seeds)
    said = f"{equal} of {checked} losses of the sweeps at rungs are the grid's to the bit (at most {farthest:g} off)."
    return [said, "", *(f"- {'yes' if met else 'NO'}: {goal}" for goal, met in made.goals.items())]
