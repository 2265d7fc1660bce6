"""`Any` only falls: mypy says nothing about what is typed so.

    python scripts/check_any.py [FOLDER]

pyproject.toml has under [tool.tunesmith.any] how often each package may still say it. More is refused, and less too
until the number there is lowered, so that what was won is kept. Imports of the name are not counted.
"""

import ast
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = "Any"


def main(root: Path = ROOT) -> None:
    """End with a line for each package whose number is another than the one written down."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    packages, allowed = settings["mypy"]["packages"], settings["tunesmith"]["any"]
    found, lines = count(root, packages)
    if faults := list(compare(found, allowed)):
        sys.exit("\n".join(faults))
    for package in packages:
        uses = sum(number for name, number in found.items() if name.partition(".")[0] == package)
        print(f"{package}: {NAME} {uses} times, {1000 * uses / max(lines[package], 1):.1f} in 1,000 lines")


def count(root: Path, packages: list[str]) -> tuple[Counter[str], Counter[str]]:
    """Return the uses of `Any` by package, those of `pipeline` and `serve` by the one inside, and lines by package."""
    uses, lines = Counter[str](), Counter[str]()
    for path in (path for package in packages for path in (root / package).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        folders = path.relative_to(root).parent.parts
        lines[folders[0]] += len(text.splitlines())
        uses[".".join(folders[:2])] += uses_in(ast.parse(text))
    return uses, lines


def uses_in(tree: ast.AST) -> int:
    """Return how often a module says it, in quoted annotations too."""
    annotations = (getattr(node, key, None) for node in ast.walk(tree) for key in ("annotation", "returns"))
    parts = (part for annotation in annotations if annotation for part in ast.walk(annotation))
    quoted = (part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str))
    return sum(map(is_any, ast.walk(tree))) + sum(len(re.findall(rf"\b{NAME}\b", text)) for text in quoted)


def is_any(node: ast.AST) -> bool:
    """Return whether a node is the name, by itself or as a module's, or gives it another one."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name, asname=str()):
            return name == NAME
    return False


def compare(found: Counter[str], allowed: dict[str, int]) -> Iterator[str]:
    """Yield what is wrong with each package, and what to do."""
    for name in sorted({*found, *allowed}):
        now, most = found[name], allowed.get(name, 0)
        if now > most:
            yield f"{name}: {NAME} {now} times, {most} are allowed; name the type"
        elif now < most:
            yield f'{name}: {NAME} {now} times, fewer than pyproject.toml allows; lower it to "{name}" = {now}'


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
