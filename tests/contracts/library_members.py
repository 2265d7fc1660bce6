"""Members of other libraries, found by their dotted names, and what of a contract with one is broken."""

import ast
import importlib
import inspect
import textwrap
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from private_members import Member


class Gone(Exception):
    """A dotted name that leads nowhere, by the part that is not there."""


def installed(member: Member) -> str | None:
    """The version of its library here."""
    try:
        return version(member.library)
    except PackageNotFoundError:
        return None


def broken(member: Member) -> str | None:
    """What of a contract no longer holds: it is gone, its parameters have changed, or nobody calls it any more."""
    try:
        if member.on_any_object:
            missing: set[str] = set()
        else:
            missing = set(member.parameters) - set(parameters(find(member.name)))
        if missing:
            return f"{member.name} no longer has the parameter {', '.join(sorted(missing))}"
        if member.called_by and member.attribute not in mentioned(find(member.called_by)):
            return f"{member.called_by} no longer calls {member.attribute}"
    except Gone as gone:
        return f"{gone} is gone"
    return None


def find(name: str) -> Any:
    """What stands under a dotted name: a module, a member of one, or a member of a class.

    Raises:
        Gone: one of its parts.
    """
    parts = name.split(".")
    found = _import(parts[0])
    for number, part in enumerate(parts[1:], start=2):
        dotted = ".".join(parts[:number])
        if not (inspect.isclass(found) and not hasattr(found, part)):
            found = getattr(found, part) if hasattr(found, part) else _import(dotted)
        elif defining_classes(found, part):  # which instances alone have
            return None
        else:
            raise Gone(dotted)
    return found


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise Gone(module) from None


def full_name(name: str) -> str:
    """The name of a member wherever it was imported from: by the class or module that defines it."""
    owner_name, _, attribute = name.rpartition(".")
    try:
        owner = find(owner_name) if owner_name else None
    except Gone:
        return name
    if inspect.isclass(owner):
        owners = defining_classes(owner, attribute)
        return f"{full_class_name(owners[0])}.{attribute}" if owners else name
    return f"{owner.__name__}.{attribute}" if inspect.ismodule(owner) else name


def defining_classes(derived: type, attribute: str) -> list[type]:
    """Of a class and its bases, those with such a member, or whose instances have one; the nearest first."""
    bases = (base for base in derived.__mro__ if base is not object)
    return [base for base in bases if attribute in vars(base) or attribute in given_to_instances(base)]


def full_class_name(owner: type) -> str:
    """A class's name with its module's."""
    return f"{owner.__module__}.{owner.__qualname__}"


@cache
def given_to_instances(owner: type) -> set[str]:
    """The attributes that a class's own methods set on `self`, and those that it annotates."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
    except (OSError, TypeError, SyntaxError):  # compiled, or made while running
        return set(vars(owner).get("__annotations__", ()))
    stored = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store))
    own = {node.attr for node in stored if isinstance(node.value, ast.Name) and node.value.id == "self"}
    return own | set(vars(owner).get("__annotations__", ()))


def parameters(function: Any) -> list[str]:
    """The names of its parameters; none where it is nothing that can be called."""
    if not callable(function):
        return []
    try:
        return list(inspect.signature(function).parameters)
    except ValueError:  # one of PyTorch's own, whose operator has them
        import torch

        schema = getattr(torch.ops.aten, function.__name__).default._schema
        return [argument.name for argument in schema.arguments]


@cache
def mentioned(caller: Any) -> set[str]:
    """The names of all that a function (or class, or module) calls, reads or looks up by a text."""
    names = set()
    function: Any = caller.fget if isinstance(caller, property) else caller
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
    return names
