"""Which modules a source names: by import statements, by strings, and by name while it runs."""

import ast
from collections.abc import Collection, Iterator

ANY = "*"  # stands for what is known only while it runs
LOADERS = ("import_module", "__import__", "run_module", "run_path", "spec_from_file_location")


class UnresolvedError(Exception):
    """A source loads something whose name cannot be told from it."""


def named_modules(
    source: str, module: str, packages: tuple[str, ...], is_package: bool = False, others: Collection[str] = ()
) -> Iterator[str]:
    """Dotted names that a source may mean modules by; ANY at the end of one is for all modules below it.

    Args:
        source: Python.
        module: its own dotted name.
        packages: whose modules strings may name.
        is_package: whether it is an __init__.py.
        others: calls that load what is not ours, as `ast.unparse` has them.

    Raises:
        UnresolvedError: it loads a module by a name that does not begin with a known package.
    """
    package = module if is_package else module.rpartition(".")[0]
    tree = ast.parse(source)
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from imported_from(node, package)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from [node.value] if node.value.split(".")[0] in packages and "." in node.value else []
        elif loads(node) and ast.unparse(call := calls.get(id(node), node)) not in others:
            yield loaded(call, {"__name__": module, "__package__": package})


def imported_from(node: ast.ImportFrom, package: str) -> list[str]:
    above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    origin = ".".join([*above, *filter(None, [node.module])])
    loaders = [alias for alias in node.names if alias.name in LOADERS and alias.asname]
    if loaders:  # whose calls would not be known
        raise UnresolvedError(f"line {node.lineno}: {loaders[0].name} under another name")
    return [origin, *(f"{origin}.{alias.name}" for alias in node.names)]


def loads(node: ast.AST) -> bool:
    """Whether it is one of the functions that load a module by its name."""
    return (isinstance(node, ast.Name) and node.id in LOADERS) or (
        isinstance(node, ast.Attribute) and node.attr in LOADERS
    )


def loaded(call: ast.AST, names: dict[str, str]) -> str:
    """The name that a call loads, of one argument alone; with another, it may be another module."""
    alone = isinstance(call, ast.Call) and len(call.args) == 1 and not call.keywords
    text = text_of(call.args[0], names) if alone else ANY
    known, rest, _ = text.partition(ANY)
    if rest and "." not in known:
        raise UnresolvedError(f"line {call.lineno}: {ast.unparse(call)}")
    return f"{known.rpartition('.')[0]}.{ANY}" if rest else known


def text_of(node: ast.AST, names: dict[str, str]) -> str:
    """What an expression comes to, with ANY for what is not known."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Name):
        return names.get(node.id, ANY)
    if isinstance(node, ast.FormattedValue):
        return text_of(node.value, names)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part, names) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left, names) + text_of(node.right, names)
    return ANY
