"""Where each setting of a node comes from: flag > environment > config file > default.

The keys are those of `HOME/config.toml`: plain ones for the node, and one table for each
group of tunables in `gossipcache.config` (`[store] quota_bytes = "10GiB"`). The environment
spells them `GOSSIPCACHE_LISTEN`, `GOSSIPCACHE_STORE_QUOTA_BYTES`. The unit at the end of a
key says how its text is read. Standard library only, so that the command line starts fast.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import PurePath
from typing import Any, Literal, cast

from gossipcache.config import (
    ALL_ROLES,
    NodeConfig,
    RecordConfig,
    Role,
    ScheduleConfig,
    StoreConfig,
    SwimConfig,
    TransferConfig,
)
from gossipcache.errors import NotPermitted, UsageError, VersionUnsupported
from gossipcache.ids import Address, is_unicast, parse_address
from gossipcache.units import checked_rate, parse_duration, parse_rate, parse_size

CONFIG_VERSION = 1
ENV_PREFIX = "GOSSIPCACHE_"
MAX_NAME_BYTES = 64
MAX_ZONE_BYTES = 32
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("human", "json")

Origin = Literal["flag", "environment", "file", "default"]
Parser = Callable[[object], Any]

# Read by the command line itself, before any setting is looked up.
_OTHER_ENVIRONMENT = {"HOME", "FORMAT"}


@dataclass(frozen=True, slots=True)
class Setting:
    """One value and where it came from."""

    key: str
    value: Any
    origin: Origin
    source: str
    """The variable or file that gave it; empty for flags and defaults."""


@dataclass(frozen=True, slots=True)
class _Key:
    name: str
    parse: Parser
    default: Any

    @property
    def variable(self) -> str:
        return ENV_PREFIX + self.name.replace(".", "_").upper()


class Settings:
    """All settings of one home, resolved."""

    def __init__(self, resolved: Mapping[str, Setting]) -> None:
        self._resolved = resolved

    def __getitem__(self, key: str) -> Any:
        return self._resolved[key].value

    def __iter__(self) -> Any:
        return iter(self._resolved.values())

    @property
    def names_cluster(self) -> bool:
        """Whether the user configured a place in a cluster, so that no lone node is started."""
        return any(self._resolved[key].origin != "default" for key in ("listen", "join"))

    def node_config(
        self,
        home: PurePath,
        *,
        host_name: str,
        networked: bool,
    ) -> NodeConfig:
        """The configuration of the node. `networked=False`: without any network port."""
        return NodeConfig(
            home=home,
            name=self["name"] or _short_name(host_name),
            listen=self["listen"] if networked else None,
            join=self["join"] if networked else (),
            advertise=self["advertise"] if networked else None,
            roles=self["roles"],
            zone=self["zone"],
            plaintext=self["insecure_plaintext"],
            **{table: self._group(table, kind) for table, kind in _GROUPS.items()},
        )

    def _group(self, table: str, kind: type[Any]) -> Any:
        return kind(**{item.name: self[f"{table}.{item.name}"] for item in fields(kind)})


def check_exposure(settings: Settings, *, has_secret: bool) -> None:
    """Refuses to face a network without a cluster secret. Raises `NotPermitted`."""
    faced = [settings["listen"], settings["advertise"], *settings["join"]]
    open_to = [address for address in faced if address is not None and not address.is_loopback]
    if open_to and not has_secret:
        raise NotPermitted(
            f"{open_to[0]} is not loopback and this home has no cluster secret",
            "run `gossipcache cluster init` on one node and `gossipcache cluster key import FILE`"
            " on the others",
        )
    http: Address | None = settings["http"]
    if http is not None and not http.is_loopback and not settings["insecure_plaintext"]:
        raise NotPermitted(
            f"--http {http} would send its token over the network in clear",
            "use a loopback address behind a TLS proxy, or say --insecure-plaintext",
        )


def load_settings(
    flags: Mapping[str, object], environ: Mapping[str, str], config_text: str, config_name: str
) -> Settings:
    """Resolves every key. `flags` hold values by key, None or () for those not given.

    Raises `UsageError` for an unknown key or a value that does not fit, `VersionUnsupported`
    for a config file of a newer format.
    """
    filed = _read_file(config_text, config_name)
    variables = _read_environment(environ)
    resolved: dict[str, Setting] = {}
    for key in _KEYS.values():
        resolved[key.name] = _resolve(key, flags, variables, filed, config_name)
    return Settings(resolved)


def _resolve(
    key: _Key,
    flags: Mapping[str, object],
    variables: Mapping[str, str],
    filed: Mapping[str, object],
    config_name: str,
) -> Setting:
    flag = flags.get(key.name)
    if flag not in (None, (), [], False):
        return Setting(key.name, _parsed(key, flag, "the command line"), "flag", "")
    if key.variable in variables:
        value = _parsed(key, variables[key.variable], key.variable)
        return Setting(key.name, value, "environment", key.variable)
    if key.name in filed:
        return Setting(key.name, _parsed(key, filed[key.name], config_name), "file", config_name)
    return Setting(key.name, key.default, "default", "")


def _parsed(key: _Key, value: object, where: str) -> Any:
    try:
        return key.parse(value)
    except UsageError as error:
        raise UsageError(f"{key.name} in {where}: {error.message}", error.hint) from error
    except (TypeError, ValueError) as error:
        raise UsageError(f"{key.name} in {where}: {value!r} does not fit") from error


def _read_file(text: str, name: str) -> dict[str, object]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{name} is not valid TOML ({error})", "correct the file") from error
    version = document.pop("version", CONFIG_VERSION)
    if not isinstance(version, int) or version > CONFIG_VERSION:
        raise VersionUnsupported(
            f"{name} has version {version!r}, this program knows up to {CONFIG_VERSION}"
        )
    found: dict[str, object] = {}
    for key, value in document.items():
        if isinstance(value, dict) and key in _GROUPS:
            found.update({f"{key}.{inner}": inner_value for inner, inner_value in value.items()})
        else:
            found[key] = value
    for key in found:
        if key not in _KEYS:
            raise _unknown(key, name)
    return found


def _read_environment(environ: Mapping[str, str]) -> dict[str, str]:
    known = {key.variable: key.name for key in _KEYS.values()}
    found = {}
    for variable, value in environ.items():
        if not variable.startswith(ENV_PREFIX):
            continue
        if variable in known:
            found[variable] = value
        elif variable.removeprefix(ENV_PREFIX) not in _OTHER_ENVIRONMENT:
            raise _unknown(variable, "the environment")
    return found


def _unknown(key: str, where: str) -> UsageError:
    import difflib

    names = [item.variable if key.startswith(ENV_PREFIX) else item.name for item in _KEYS.values()]
    close = difflib.get_close_matches(key, names, n=1)
    hint = f"did you mean {close[0]}" if close else "`gossipcache config show` lists the keys"
    return UsageError(f"{where} sets {key}, which is no setting", hint)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _name(value: object) -> str:
    name = _text(value)
    if not name or len(name.encode()) > MAX_NAME_BYTES or not name.isprintable():
        raise UsageError(f"a name has 1 to {MAX_NAME_BYTES} printable bytes")
    return name


def _zone(value: object) -> str:
    zone = _text(value)
    if len(zone.encode()) > MAX_ZONE_BYTES or not zone.isprintable():
        raise UsageError(f"a zone has up to {MAX_ZONE_BYTES} printable bytes")
    return zone


def _short_name(host_name: str) -> str:
    """The first label of the machine's name, cut to what a member's name may be."""
    return host_name.partition(".")[0].encode()[:MAX_NAME_BYTES].decode(errors="ignore") or "node"


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = _text(value).lower()
    if text not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
        raise UsageError(f"{value!r} is neither true nor false", "write true or false")
    return text in ("1", "true", "yes", "on")


def _address(value: object) -> Address:
    return value if isinstance(value, Address) else parse_address(_text(value))


def _own_address(value: object) -> Address:
    address = _address(value)
    if not is_unicast(address.host):
        raise UsageError(
            f"the other members cannot dial {address.host!r}", "give this machine's IP address"
        )
    return address


def _items(value: object) -> tuple[object, ...]:
    """A list, or comma-separated text, which is how the environment writes one."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(cast("list[object]", value))


def _addresses(value: object) -> tuple[Address, ...]:
    return tuple(_address(item) for item in _items(value))


def _roles(value: object) -> frozenset[Role]:
    names = frozenset(_text(item) for item in _items(value))
    if not names or names - ALL_ROLES:
        raise UsageError(
            "a role is peer or scheduler", "give --role peer, --role scheduler or both"
        )
    return cast("frozenset[Role]", names)


def _one_of(choices: tuple[str, ...]) -> Parser:
    def parse(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise UsageError(f"{value!r} is none of {', '.join(choices)}")
        return value

    return parse


def _seconds(value: object) -> float:
    return float(cast(float, value)) if _is_number(value) else parse_duration(_text(value))


def _bytes(value: object) -> int:
    return int(cast(int, value)) if _is_number(value) else parse_size(_text(value))


def _rate(value: object) -> int | None:
    """Bytes a second; None for no limit, which is written `none` or 0."""
    if _is_number(value):
        return checked_rate(int(cast(int, value))) or None
    return parse_rate(_text(value)) or None


def _integer(value: object) -> int:
    return int(_text(value)) if isinstance(value, str) else int(cast(int, value))


def _number(value: object) -> float:
    return float(_text(value)) if isinstance(value, str) else float(cast(float, value))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _at_least(parse: Parser, least: float) -> Parser:
    def checked(value: object) -> Any:
        parsed = parse(value)
        if not least <= parsed < float("inf"):
            raise UsageError(f"{value!r} is out of range", f"give at least {least:g}")
        return parsed

    return checked


def _tunable(item: Field[Any]) -> Parser:
    """How a field of a config group is read: by the unit at the end of its name, then its type."""
    if item.name.endswith("interval_s"):
        return _at_least(_seconds, 0.01)
    if item.name.endswith("_s"):
        return _at_least(_seconds, 0.0)
    if item.name.endswith("_rate"):
        return _rate
    if item.name.endswith("_bytes"):
        return _at_least(_bytes, 1)
    return _at_least(_number, 1.0) if "float" in str(item.type) else _at_least(_integer, 1)


_GROUPS: dict[str, type[Any]] = {
    "swim": SwimConfig,
    "records": RecordConfig,
    "schedule": ScheduleConfig,
    "transfer": TransferConfig,
    "store": StoreConfig,
}

_PLAIN_KEYS = (
    _Key("name", _name, None),
    _Key("listen", _address, Address("127.0.0.1", 0)),
    _Key("join", _addresses, ()),
    _Key("advertise", _own_address, None),
    _Key("roles", _roles, ALL_ROLES),
    _Key("zone", _zone, ""),
    _Key("http", _address, None),
    _Key("insecure_plaintext", _flag, False),
    _Key("idle_end_s", _at_least(_seconds, 0.1), 1800.0),
    _Key("log_level", _one_of(LOG_LEVELS), "info"),
    _Key("log_format", _one_of(LOG_FORMATS), "human"),
)

_KEYS: dict[str, _Key] = {key.name: key for key in _PLAIN_KEYS}
for _table, _kind in _GROUPS.items():
    for _item in fields(_kind):
        assert _item.default is not MISSING
        _name_in_file = f"{_table}.{_item.name}"
        _KEYS[_name_in_file] = _Key(_name_in_file, _tunable(_item), _item.default)
