"""Makes `docs/protocol.md` from `docs/protocol-head.md` and the message classes.

python docs/generate.py            rewrites the file
python docs/generate.py --check    exits 1 if it is out of date
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

import msgspec.inspect as types
from msgspec import Struct

import gossipcache.charter
import gossipcache.manifest
import gossipcache.messages
from gossipcache.wire import Message

DOCS = Path(__file__).resolve().parent


def protocol() -> str:
    """The whole text of the protocol document."""
    modules = [gossipcache.manifest, gossipcache.charter] + [
        importlib.import_module(f"gossipcache.messages.{found.name}")
        for found in pkgutil.iter_modules(gossipcache.messages.__path__)
    ]
    sections = [section for module in modules for section in _module(module)]
    return (DOCS / "protocol-head.md").read_text() + "\n" + "\n".join(sections)


def _module(module: ModuleType) -> list[str]:
    own = [
        kind
        for kind in vars(module).values()
        if inspect.isclass(kind) and issubclass(kind, Struct) and kind.__module__ == module.__name__
    ]
    if not own:
        return []
    title = module.__name__.rpartition(".")[2].replace("_", " ").capitalize()
    return [f"### {title}\n", _prose(module), *(_struct(kind) for kind in own)]


def _prose(subject: object) -> str:
    return (inspect.getdoc(subject) or "").replace("\n    ", "\n        ") + "\n"


def _struct(kind: type[Struct]) -> str:
    info = types.type_info(kind)
    assert isinstance(info, types.StructType)
    form = f'message `"{info.tag}"`' if issubclass(kind, Message) else "part"
    if info.array_like:
        form += ", compact"
    lines = [f"#### {kind.__name__} ({form})\n", _prose(kind)]
    if info.fields:
        notes = _field_notes(kind)
        lines += ["| field | type and limits | meaning |", "|---|---|---|"]
        lines += [
            f"| `{field.encode_name}` | {_describe(field.type)} | {notes.get(field.name, '')} |"
            for field in info.fields
        ]
    return "\n".join(lines) + "\n"


def _field_notes(kind: type[Struct]) -> dict[str, str]:
    body = ast.parse(inspect.getsource(kind).lstrip()).body[0]
    assert isinstance(body, ast.ClassDef)
    notes = {}
    for field, after in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            notes[field.target.id] = " ".join(str(after.value.value).split())
    return notes


def _describe(kind: types.Type) -> str:
    match kind:
        case types.Metadata():
            return _describe(kind.type)
        case types.BytesType() | types.StrType():
            name = "bytes" if isinstance(kind, types.BytesType) else "text"
            return f"{name}{_range(kind.min_length, kind.max_length, ' long')}{_shape(kind)}"
        case types.IntType():
            return f"integer{_range(kind.ge, kind.le, '')}"
        case types.VarTupleType() | types.ListType():
            size = _range(kind.min_length, kind.max_length, " items")
            return f"array of {_describe(kind.item_type)}{size}"
        case types.TupleType():
            return f"array of ({', '.join(_describe(item) for item in kind.item_types)})"
        case types.DictType():
            return f"map of {_describe(kind.key_type)} to {_describe(kind.value_type)}"
        case types.UnionType():
            return " or ".join(_describe(item) for item in kind.types)
        case types.LiteralType():
            return " or ".join(f"`{value}`" for value in kind.values)
        case types.StructType():
            return kind.cls.__name__
        case types.NoneType():
            return "nothing"
        case types.BoolType():
            return "true or false"
        case _:
            return type(kind).__name__.removesuffix("Type").lower()


def _shape(kind: types.BytesType | types.StrType) -> str:
    pattern = kind.pattern if isinstance(kind, types.StrType) else None
    return "" if pattern is None else f", `{pattern}`".replace("|", "\\|")


def _range(low: int | None, high: int | None, unit: str) -> str:
    if low is None and high is None:
        return ""
    if low == high:
        return f", {low}{unit}"
    if high is None:
        return f", at least {low}{unit}"
    bound = f"2^{high.bit_length()} - 1" if high > 2**31 - 2 else str(high)
    return f", {low or 0} to {bound}{unit}"


def main() -> None:
    """Rewrites the document, or with `--check` compares it."""
    target, made = DOCS / "protocol.md", protocol()
    if "--check" not in sys.argv:
        target.write_text(made)
    elif target.read_text() != made:
        sys.exit(f"{target.name} is out of date: run python docs/generate.py")


if __name__ == "__main__":
    main()
