"""How long a message is on the wire, without encoding it.

A rule for each class of messages is made once from its fields (RFC 8949: a head of 1, 2, 3, 5 or
9 bytes before each value); what has one length only is added up beforehand. A contract test
holds the rules to the real encoding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

from gossipcache.identity import Signed
from gossipcache.wire import encode_plain

Rule = Callable[[Any], int]
Field = Callable[[Any], Any]
_REMEMBERED = 4096
_BY_BITS = bytes(
    2 if bits <= 8 else 3 if bits <= 16 else 5 if bits <= 32 else 9 for bits in range(65)
)
"""Bytes of the head of an argument of 24 and more, by the bits it needs."""


class _Rules(NamedTuple):
    constant: int
    """The bytes that every message takes, tuples taken for empty."""
    integers: tuple[Field, ...]
    tuples: tuple[tuple[Field, Rule], ...]
    others: tuple[tuple[Field, Rule], ...]


def length_of(message: msgspec.Struct) -> int:
    """`len(encode(message))`."""
    size, integers, tuples, others = _rules_of(type(message))
    for field in integers:
        value = field(message)
        size += _BY_BITS[value.bit_length()] if value > 23 else _head(value)
    for field, rule in tuples:
        if values := field(message):
            size += rule(values) - 1
    for field, rule in others:
        size += rule(field(message))
    return size


@cache
def _rules_of(kind: type[msgspec.Struct]) -> _Rules:
    known = inspect.type_info(kind)
    assert isinstance(known, inspect.StructType)
    constant = _head(len(known.fields) + (known.tag is not None))
    if known.tag is not None and not known.array_like:
        assert isinstance(known.tag, str)
        assert known.tag_field is not None
        constant += _text(known.tag_field) + _text(known.tag)
    integers: list[Field] = []
    tuples: list[tuple[Field, Rule]] = []
    others: list[tuple[Field, Rule]] = []
    for each in known.fields:
        field = attrgetter(each.name)
        if not known.array_like:
            constant += _text(each.encode_name)
        fixed = _fixed(each.type)
        if fixed is not None:
            constant += fixed
        elif isinstance(each.type, inspect.IntType):
            integers.append(field)
        elif isinstance(each.type, inspect.VarTupleType):
            constant += 1
            tuples.append((field, _items(each.type.item_type)))
        else:
            others.append((field, _rule_of(each.type)))
    return _Rules(constant, tuple(integers), tuple(tuples), tuple(others))


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
    fixed = _fixed(kind)
    match kind:
        case _ if fixed is not None:
            return lambda value: fixed
        case inspect.IntType():
            return _head
        case inspect.BytesType():
            return _bytes
        case inspect.StrType():
            return _text
        case inspect.LiteralType(values=values):
            return {each: len(encode_plain(each)) for each in values}.__getitem__
        case inspect.VarTupleType(item_type=item):
            return _items(item)
        case inspect.StructType(cls=cls):
            return _signed if cls is Signed else length_of
        case _:
            return lambda value: len(
                encode_plain(msgspec.to_builtins(value, builtin_types=(bytes,)))
            )


def _items(kind: inspect.Type) -> Rule:
    rule = _rule_of(kind)
    if isinstance(kind, inspect.StructType):
        # The same news goes round in very many messages.
        rule = lru_cache(_REMEMBERED)(rule)
    return lambda values: _head(len(values)) + sum(map(rule, values))


def _signed(value: Signed) -> int:
    payload = len(value.payload)
    return 1 + _head(payload) + payload + 34 + 66


def _head(argument: int) -> int:
    if argument < 0:
        argument = -1 - argument
    return 1 if argument < 24 else _BY_BITS[argument.bit_length()]


def _bytes(value: bytes) -> int:
    size = len(value)
    return _head(size) + size


def _text(value: str) -> int:
    return _bytes(value.encode())
