"""How long a message is on the wire, without encoding it.

A rule for each class of messages is made once from its fields (RFC 8949: a head of 1, 2, 3, 5 or
9 bytes before each value); what has one length only is added up beforehand. A contract test
holds the rules to the real encoding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

from gossipcache.identity import Signed
from gossipcache.wire import encode

Rule = Callable[[Any], int]


def length_of(message: msgspec.Struct) -> int:
    """`len(encode(message))`."""
    constant, parts = _rules_of(type(message))
    for name, rule in parts:
        constant += rule(getattr(message, name))
    return constant


@cache
def _rules_of(kind: type[msgspec.Struct]) -> tuple[int, tuple[tuple[str, Rule], ...]]:
    """The bytes that every message of `kind` takes, and rules for its other fields."""
    known = inspect.type_info(kind)
    assert isinstance(known, inspect.StructType)
    constant = _head(len(known.fields) + (known.tag is not None))
    if known.tag is not None and not known.array_like:
        assert isinstance(known.tag, str)
        assert known.tag_field is not None
        constant += _text(known.tag_field) + _text(known.tag)
    parts: list[tuple[str, Rule]] = []
    for each in known.fields:
        if not known.array_like:
            constant += _text(each.encode_name)
        fixed = _fixed(each.type)
        if fixed is None:
            parts.append((each.name, _rule_of(each.type)))
        else:
            constant += fixed
    return constant, tuple(parts)


def _fixed(kind: inspect.Type) -> int | None:
    """The length of every value of `kind`, if they are equally long."""
    match kind:
        case inspect.BoolType() | inspect.NoneType():
            return 1
        case inspect.BytesType(min_length=int(least), max_length=most) if least == most:
            return _head(least) + least
        case _:
            return None


def _rule_of(kind: inspect.Type) -> Rule:
    match kind:
        case inspect.IntType():
            return _integer
        case inspect.BytesType():
            return _bytes
        case inspect.StrType() | inspect.LiteralType():
            return _text_or_plain
        case inspect.VarTupleType(item_type=inspect.StructType(cls=item)):
            return _signed if item is Signed else _structs
        case inspect.VarTupleType(item_type=item):
            fixed = _fixed(item)
            rule = _rule_of(item) if fixed is None else None
            return lambda values: (
                _head(len(values))
                + (sum(map(rule, values)) if rule is not None else len(values) * (fixed or 0))
            )
        case inspect.StructType():
            return length_of
        case _:
            return _encoded


def _head(argument: int) -> int:
    if argument < 24:
        return 1
    if argument < 2**8:
        return 2
    if argument < 2**16:
        return 3
    return 5 if argument < 2**32 else 9


def _integer(value: int) -> int:
    return _head(value if value >= 0 else -1 - value)


def _bytes(value: bytes) -> int:
    size = len(value)
    return _head(size) + size


def _text(value: str) -> int:
    size = len(value.encode())
    return _head(size) + size


def _text_or_plain(value: object) -> int:
    return _text(value) if isinstance(value, str) else _encoded(value)


def _signed(values: tuple[Signed, ...]) -> int:
    size = _head(len(values))
    for each in values:
        payload = len(each.payload)
        size += 1 + _head(payload) + payload + 34 + 66
    return size


def _structs(values: tuple[msgspec.Struct, ...]) -> int:
    return _head(len(values)) + sum(map(length_of, values))


def _encoded(value: Any) -> int:
    return len(encode(value))
