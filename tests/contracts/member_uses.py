"""Where code uses private members of other libraries: what the table of contracts has to name.

Found by reading the code, not by running it. What cannot be told to be ours counts as another library's.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from library_members import Gone, defining_classes, find, full_class_name, full_name
from private_members import DOCUMENTED, INTERNAL, NOT_FOR_DERIVING

MODULE_IN_A_TEXT = re.compile(r"([A-Za-z]\w*\.)+_[a-z]\w*(\.\w+)*")
BY_NAME = ("getattr", "setattr", "hasattr", "delattr")


class Use(NamedTuple):
    """A use of a member: its dotted name, or `*.name` where it is not known whose it is."""

    name: str
    where: str


class Source(NamedTuple):
    """A file's code, and what the names in it stand for."""

    where: str
    tree: ast.Module
    imports: dict[str, str]  # what was imported, under its dotted name
    defined: set[str]  # private members that it defines itself


class Code:
    """All code of some packages."""

    def __init__(self, folders: Iterable[Path]) -> None:
        """Reads every module in the folders, each named as its package is."""
        folders = list(folders)
        self.packages = {folder.name for folder in folders}
        self.sources = [read(path, folder.parent) for folder in folders for path in sorted(folder.rglob("*.py"))]

    @cached_property
    def uses(self) -> list[Use]:
        """Every use of what has to stand in the table."""
        return [use for source in self.sources for use in Finder(self, source).found()]

    @cached_property
    def names(self) -> set[str]:
        """All names in the code, and texts that might be one."""
        return {name for source in self.sources for node in ast.walk(source.tree) for name in names_in(node)}

    @cached_property
    def classes(self) -> dict[str, list[tuple[Source, ast.ClassDef]]]:
        """Our classes by name, of which several files may have one each."""
        classes: dict[str, list[tuple[Source, ast.ClassDef]]] = {}
        for source in self.sources:
            for node in ast.walk(source.tree):
                if isinstance(node, ast.ClassDef):
                    classes.setdefault(node.name, []).append((source, node))
        return classes

    def library_bases(self, source: Source, derived: ast.ClassDef) -> Iterator[type]:
        """The classes of other libraries that one of ours derives from, by way of others of ours or not."""
        for base in derived.bases:
            expression = base.value if isinstance(base, ast.Subscript) else base
            name = dotted(expression, source.imports)
            if name and "." in name and name.partition(".")[0] not in self.packages:
                with suppress(Gone):  # an optional library's
                    if isinstance(found := find(name), type):
                        yield found
            else:
                for of, own in self.classes.get(ast.unparse(expression).rpartition(".")[2], []):
                    if own is not derived:
                        yield from self.library_bases(of, own)


class Finder(ast.NodeVisitor):
    """Goes through one file."""

    def __init__(self, code: Code, source: Source) -> None:
        self.code, self.source = code, source
        self.uses: list[Use] = []
        self.bases: list[list[type]] = []  # of the classes around, inmost last: those of other libraries

    def found(self) -> list[Use]:
        """What it uses."""
        self.visit(self.source.tree)
        return self.uses

    def add(self, name: str, node: ast.AST) -> None:
        """Notes a use."""
        if name not in DOCUMENTED:
            self.uses.append(Use(name, f"{self.source.where}:{getattr(node, 'lineno', 0)}"))

    def visit_Import(self, node: ast.Import) -> None:
        """A module by a private name."""
        for alias in node.names:
            self.library(alias.name, node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Something out of a private module, or by a private name."""
        if not node.level:
            for alias in node.names:
                self.library(f"{node.module}.{alias.name}", node)

    def library(self, name: str, node: ast.AST) -> None:
        """A dotted name that begins with an imported package."""
        root, *rest = name.split(".")
        if root in self.code.packages:
            return
        if any(map(is_private, rest)):
            self.add(full_name(name), node)
        elif name.startswith(INTERNAL):
            self.add(name, node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """What it overrides."""
        bases = list(self.code.library_bases(self.source, node))
        for member in node.body:
            for name in defined_by(member):
                for base in bases:
                    self.overridden(base, name, member)
        self.bases.append(bases)
        self.generic_visit(node)
        self.bases.pop()

    def overridden(self, base: type, name: str, node: ast.AST) -> None:
        """A member that a class of ours defines, and a base may have; a private one's own base's, too."""
        owners = [full_class_name(owner) for owner in defining_classes(base, name)]
        for owner in owners if is_private(name) else set(owners[:1]) & set(NOT_FOR_DERIVING):
            if not name.startswith("__"):
                self.add(f"{owner}.{name}", node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """`a.b._c.d` as a whole."""
        root, attributes = unroll(node)
        name = dotted(node, self.source.imports)
        if name:
            self.library(name, node)
            return
        if self.bases and (is_self(root) or is_super(root)):
            self.inherited(attributes.pop(0), node)
        for attribute in filter(is_private, attributes):
            self.unknown(attribute, node)
        self.visit(root)

    def inherited(self, attribute: str, node: ast.AST) -> None:
        """`self.attribute` in a class of ours, which a base may have from another library."""
        if not is_private(attribute):
            return
        owners = [owner for base in self.bases[-1] for owner in defining_classes(base, attribute)[:1]]
        for owner in owners:
            self.add(f"{full_class_name(owner)}.{attribute}", node)
        if not owners:
            self.unknown(attribute, node, *self.code.sources)

    def unknown(self, attribute: str, node: ast.AST, *others: Source) -> None:
        """A member of who knows what: ours only if this file, or one of the others, defines such a member."""
        if not any(attribute in source.defined for source in (self.source, *others)):
            self.add(f"*.{attribute}", node)

    def visit_Call(self, node: ast.Call) -> None:
        """`getattr(x, "_name")`."""
        if isinstance(node.func, ast.Name) and node.func.id in BY_NAME and len(node.args) > 1:
            name = node.args[1].values[0] if isinstance(node.args[1], ast.JoinedStr) else node.args[1]
            text = name.value if isinstance(name, ast.Constant) else ""
            if isinstance(text, str) and is_private(text) and not (self.bases and is_self(node.args[0])):
                self.unknown(text, node)
            elif isinstance(text, str) and isinstance(node.args[1], ast.Constant) and is_private(text):
                self.inherited(text, node)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """A text that names a private module, as of a logger."""
        text = node.value if isinstance(node.value, str) and " " not in node.value else ""
        if text.startswith(INTERNAL):
            self.add(text.strip("."), node)
        elif MODULE_IN_A_TEXT.fullmatch(text):
            self.add(f"*.{text}", node)


def read(path: Path, root: Path) -> Source:
    """A file's code."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports: dict[str, str] = {}
    defined: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= {alias.asname or alias.name.partition(".")[0]: whole(alias) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imports |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ClassDef):
            defined |= {name for member in node.body for name in defined_by(member)}
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            defined.add(node.attr)
    return Source(str(path.relative_to(root)), tree, imports, defined)


def whole(alias: ast.alias) -> str:
    """What the name of an `import` stands for."""
    return alias.name if alias.asname else alias.name.partition(".")[0]


def defined_by(member: ast.stmt) -> set[str]:
    """The names that a statement in a class's body defines."""
    if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {member.name}
    targets = member.targets if isinstance(member, ast.Assign) else []
    targets = [member.target] if isinstance(member, ast.AnnAssign) else targets
    return {target.id for target in targets if isinstance(target, ast.Name)}


def names_in(node: ast.AST) -> list[str]:
    """The names that a node consists of."""
    if isinstance(node, ast.Attribute):
        return [node.attr]
    if isinstance(node, ast.alias):
        return node.name.split(".")
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
        return node.value.split(".")
    return []


def unroll(node: ast.expr) -> tuple[ast.expr, list[str]]:
    """What a chain of attributes begins with, and their names."""
    attributes: list[str] = []
    while isinstance(node, ast.Attribute):
        attributes.insert(0, node.attr)
        node = node.value
    return node, attributes


def dotted(node: ast.expr, imports: dict[str, str]) -> str | None:
    """The whole name of something imported, or of one of its members."""
    root, attributes = unroll(node)
    if not isinstance(root, ast.Name) or root.id not in imports:
        return None
    return ".".join([imports[root.id], *attributes])


def is_private(name: str) -> bool:
    """Whether a name begins with one underscore and is none that everybody may use."""
    return name.startswith("_") and not name.startswith("__") and name.strip("_") != "" and name not in DOCUMENTED


def is_self(node: ast.expr) -> bool:
    """Whether it is the object or class that a method belongs to."""
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def is_super(node: ast.expr) -> bool:
    """Whether it is `super()`."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"
