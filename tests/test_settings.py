"""Settings: flag > environment > file > default, with units, and clear words for mistakes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipcache.errors import NotPermitted, UsageError, VersionUnsupported
from gossipcache.ids import Address
from gossipcache.settings import Settings, check_exposure, load_settings
from gossipcache.units import format_size, parse_duration, parse_size


def load(text: str = "", environ: dict[str, str] | None = None, **flags: object) -> Settings:
    return load_settings(flags, environ or {}, text, "config.toml")


def test_the_flag_beats_the_environment_beats_the_file_beats_the_default() -> None:
    text, environ = 'name = "file"', {"GOSSIPCACHE_NAME": "environment"}
    assert load()["name"] is None
    assert load(text)["name"] == "file"
    assert load(text, environ)["name"] == "environment"
    assert load(text, environ, name="flag")["name"] == "flag"


def test_each_setting_knows_where_it_came_from() -> None:
    settings = load('name = "file"', {"GOSSIPCACHE_LISTEN": "127.0.0.1:7101"}, log_level="debug")
    origins = {setting.key: (setting.origin, setting.source) for setting in settings}
    assert origins["name"] == ("file", "config.toml")
    assert origins["listen"] == ("environment", "GOSSIPCACHE_LISTEN")
    assert origins["log_level"] == ("flag", "")
    assert origins["join"] == ("default", "")


def test_tables_hold_the_tunables_with_units() -> None:
    text = """
    version = 1
    join = ["127.0.0.1:1", "[::1]:2"]
    [store]
    quota_bytes = "1.5GB"
    idle_ttl_s = "7d"
    [transfer]
    upload_rate = "100MiB/s"
    download_rate = "none"
    task_upload_rate = 65536
    [swim]
    probe_interval_s = 0.5
    indirect_probes = 5
    """
    config = load(text).node_config(PurePath("/h"), host_name="box.example", networked=True)
    assert config.store.quota_bytes == 1_500_000_000
    assert config.store.idle_ttl_s == 7 * 86400
    assert config.swim.probe_interval_s == 0.5
    assert config.transfer.upload_rate == 100 * 2**20
    assert (config.transfer.download_rate, config.transfer.task_upload_rate) == (None, 65536)
    assert config.swim.indirect_probes == 5
    assert config.join == (Address("127.0.0.1", 1), Address("::1", 2))
    assert config.name == "box"


def test_the_environment_spells_lists_with_commas_and_tables_with_underscores() -> None:
    environ = {
        "GOSSIPCACHE_JOIN": "127.0.0.1:1, 127.0.0.1:2",
        "GOSSIPCACHE_STORE_QUOTA_BYTES": "64KiB",
        "GOSSIPCACHE_HOME": "/elsewhere",
        "PATH": "/bin",
    }
    settings = load("", environ)
    assert len(settings["join"]) == 2
    assert settings["store.quota_bytes"] == 65536


def test_a_node_without_network_has_no_address_and_joins_nobody() -> None:
    settings = load('listen = "127.0.0.1:1"\njoin = ["127.0.0.1:2"]')
    config = settings.node_config(PurePath("/h"), host_name="box", networked=False)
    assert config.listen is None
    assert config.join == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nmae = 'x'", "nmae"),
        ("[swim]\nprobe = 1", "swim.probe"),
        ("[swimm]\nx = 1", "swimm"),
        ("listen = 'nowhere'", "nowhere"),
        ("roles = ['king']", "role"),
        ("log_level = 'loud'", "loud"),
        ("name = 7", "name"),
        ("[store]\nquota_bytes = '12 parsecs'", "parsecs"),
        ("[transfer]\nupload_rate = '12/s'", "transfer.upload_rate"),
        ("[transfer]\nupload_rate = 'fast'", "fast"),
        ("[swim]\nprobe_interval_s = 0", "swim.probe_interval_s"),
        ("[records]\nreplicas = 0", "records.replicas"),
        ("insecure_plaintext = 'perhaps'", "perhaps"),
        ("= broken", "TOML"),
    ],
)
def test_mistakes_are_named_with_their_place(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        load(text)
    assert "config.toml" in caught.value.message
    assert caught.value.hint


def test_a_zone_is_short_and_printable() -> None:
    assert load("zone = 'rack 7'")["zone"] == "rack 7"
    assert load("")["zone"] == ""
    for zone in ("z" * 33, "ü" * 17, "a\\u001bb"):
        with pytest.raises(UsageError, match="32 printable bytes"):
            load(f'zone = "{zone}"')


def test_a_misspelt_key_gets_a_suggestion() -> None:
    with pytest.raises(UsageError) as caught:
        load("", {"GOSSIPCACHE_LISTNE": "127.0.0.1:1"})
    assert caught.value.hint == "did you mean GOSSIPCACHE_LISTEN"


def test_a_newer_config_file_is_refused() -> None:
    with pytest.raises(VersionUnsupported, match="version 2"):
        load("version = 2\nunheard_of = 1")


@pytest.mark.parametrize(
    "text",
    ['listen = "0.0.0.0:7101"', 'join = ["10.0.0.1:7101"]', 'advertise = "10.0.0.1:7101"'],
)
def test_a_network_is_not_faced_without_a_secret(text: str) -> None:
    with pytest.raises(NotPermitted) as caught:
        check_exposure(load(text), has_secret=False)
    assert "cluster init" in caught.value.hint
    check_exposure(load(text), has_secret=True)


@pytest.mark.parametrize("host", ["node.example.com", "0.0.0.0", "224.0.0.1"])
def test_others_are_told_an_address_that_they_can_dial(host: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(f'advertise = "{host}:7101"')
    assert caught.value.hint == "give this machine's IP address"


def test_a_name_is_not_loopback_for_its_first_letters() -> None:
    with pytest.raises(NotPermitted):
        check_exposure(load('listen = "127.example.com:7101"'), has_secret=False)


def test_the_http_token_does_not_travel_in_clear() -> None:
    with pytest.raises(NotPermitted, match="token"):
        check_exposure(load('http = "10.0.0.1:80"'), has_secret=True)
    check_exposure(load('http = "127.0.0.1:80"'), has_secret=True)


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("4096", 4096), ("64KiB", 65536), ("64k", 65536), ("1.5GB", 1_500_000_000),
     ("10 MiB", 10 * 2**20), ("1TiB", 2**40)],
)  # fmt: skip
def test_sizes(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "-1", "1e9", "KiB", "1 parsec", "nan", "9" * 30, "１"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


def test_durations() -> None:
    assert [parse_duration(text) for text in ("30s", "10m", "2h", "7d", "500ms", "0", "1.5")] == [
        30, 600, 7200, 604800, 0.5, 0, 1.5,
    ]  # fmt: skip
    with pytest.raises(UsageError):
        parse_duration("200000d")


@given(st.integers(0, 2**62))
def test_a_written_size_is_read_back(count: int) -> None:
    assert parse_size(str(count)) == count
    assert format_size(count)[-1] == "B"


def test_settings_load_nothing_heavy() -> None:
    code = "import sys, gossipcache.settings; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"trio", "msgspec", "nacl", "cbor2", "click"} & set(loaded.stdout.split())
