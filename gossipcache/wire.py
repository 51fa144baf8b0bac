"""Strict CBOR (RFC 8949, core deterministic encoding) of typed messages.

What is accepted: definite lengths, shortest forms, sorted and distinct map keys, no tags,
depth at most 16, no trailing bytes. The check is simple: re-encoding what was decoded must
give the input again. A `Message` is a map with its kind under "t"; unknown kinds, unknown
keys, missing keys and values out of bounds are errors.
"""

from __future__ import annotations

from functools import cache
from types import UnionType
from typing import Any, NoReturn, TypeVar, get_args

import cbor2
import msgspec
import msgspec.inspect

from gossipcache.errors import ProtocolError

PROTOCOL_MIN = 1
PROTOCOL_MAX = 1
MAX_DEPTH = 16
MAX_MESSAGE_BYTES = 66 * 1024
"""Limit of one encoded control message: 64 KiB of content, and what says whose it is. Pieces
travel outside this limit."""

T = TypeVar("T")
_ATOMS = (
    msgspec.inspect.BoolType,
    msgspec.inspect.BytesType,
    msgspec.inspect.IntType,
    msgspec.inspect.LiteralType,
    msgspec.inspect.NoneType,
    msgspec.inspect.StrType,
)


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="t"):
    """Base of everything sent between nodes; a subclass gives its own `tag`."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the parts of messages: the same strictness, without a kind."""


class CompactRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """A `Record` written as an array, for datagrams, where every byte counts."""


def _reject_tag(*_args: object) -> NoReturn:
    raise ProtocolError("a CBOR tag where none is allowed")


# Every tag that cbor2 decodes by itself, some at great cost (regular expressions, bignums).
_BUILT_IN_TAGS = (
    *range(6), 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799,
)  # fmt: skip
_TAG_DECODERS: Any = dict.fromkeys(_BUILT_IN_TAGS, _reject_tag)


def encode_plain(value: object) -> bytes:
    """Deterministic CBOR of plain values (dict, list, str, bytes, int, bool, None)."""
    return cbor2.dumps(value, canonical=True)


def decode_plain(data: bytes, limit_bytes: int = MAX_MESSAGE_BYTES) -> Any:
    """The plain value in `data`. Raises `ProtocolError` on anything not canonical."""
    value = _loaded(data, limit_bytes)
    try:
        _check_canonical(data, encode_plain(value))
    except (cbor2.CBORError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise _invalid(error) from error
    return value


def encode(message: msgspec.Struct) -> bytes:
    """The exact bytes of a message or record."""
    return _encoded(_built(message), _keys_of(type(message)))


def decode(data: bytes, kind: type[T], limit_bytes: int = MAX_MESSAGE_BYTES) -> T:
    """The message in `data`, which must be of `kind` (a class, or a union of classes).

    Raises `ProtocolError` naming the place of the first value that does not fit.
    """
    plain = _loaded(data, limit_bytes)
    try:
        message: T = msgspec.convert(plain, _class_in(kind, plain))
    except (msgspec.ValidationError, RecursionError) as error:
        raise ProtocolError(f"a message that does not fit: {error}") from error
    found: Any = type(message)
    keys = _keys_of(found)
    if keys is None:
        _check_canonical(data, encode_plain(plain))
    else:
        # What has a default may be left out.
        given = keys if len(keys) == len(plain) else tuple(key for key in keys if key in plain)
        _check_canonical(data, _encoded(_built(message), given))
    return message


def _built(message: object) -> Any:
    return msgspec.to_builtins(message, builtin_types=(bytes,))


def _encoded(plain: Any, keys: tuple[str, ...] | None) -> bytes:
    """What `encode_plain` gives, but three times as fast if `keys` says in which order."""
    if keys is None:
        return encode_plain(plain)
    return cbor2.dumps({key: plain[key] for key in keys} if keys else plain)


def _loaded(data: bytes, limit_bytes: int) -> Any:
    if len(data) > limit_bytes:
        raise ProtocolError(f"a message of {len(data)} bytes, the limit is {limit_bytes}")
    try:
        return cbor2.loads(
            data,
            tag_hook=_reject_tag,
            semantic_decoders=_TAG_DECODERS,
            max_depth=MAX_DEPTH,
            allow_indefinite=False,
            allow_duplicate_keys=False,
        )
    except (cbor2.CBORError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise _invalid(error) from error


def _invalid(error: Exception) -> ProtocolError:
    return ProtocolError(f"not valid CBOR ({type(error).__name__})")


def _check_canonical(data: bytes, canonical: bytes) -> None:
    if canonical != data:
        raise ProtocolError("the CBOR is not in canonical form")


@cache
def _keys_of(kind: Any) -> tuple[str, ...] | None:
    """The keys of `kind` in canonical order, none if it is an array; None if what it holds can
    only be put in order when it is encoded."""
    known = msgspec.inspect.type_info(kind)
    if not isinstance(known, msgspec.inspect.StructType):
        return None
    if known.array_like:
        return () if _is_ordered(known) else None
    if not all(_is_ordered(field.type) for field in known.fields):
        return None
    keys = [field.encode_name for field in known.fields]
    if known.tag_field is not None:
        keys.append(known.tag_field)
    return tuple(sorted(keys, key=encode_plain))


def _is_ordered(kind: msgspec.inspect.Type) -> bool:
    """Whether there is one way only to write a value of `kind`: not so for maps and floats."""
    match kind:
        case msgspec.inspect.StructType():
            return kind.array_like and all(
                field.required and _is_ordered(field.type) for field in kind.fields
            )
        case msgspec.inspect.VarTupleType():
            return _is_ordered(kind.item_type)
        case msgspec.inspect.UnionType():
            return all(_is_ordered(each) for each in kind.types)
        case _:
            return isinstance(kind, _ATOMS)


def _class_in(kind: Any, plain: Any) -> Any:
    """The class of a union that the tag in `plain` names: msgspec would make its own index of
    the union at each call."""
    tag = plain.get("t") if isinstance(kind, UnionType) and isinstance(plain, dict) else None
    return _by_tag(kind).get(tag, kind) if isinstance(tag, str) else kind


@cache
def _by_tag(union: UnionType) -> dict[str, Any]:
    return {str(each.__struct_config__.tag): each for each in get_args(union)}
