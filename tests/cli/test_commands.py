"""The commands around the verbs: node, members, ring, store, cluster, config."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gossipcache import __version__
from gossipcache.cli.reference import reference
from gossipcache.home import Home
from gossipcache.requests import LimitsChange, TaskLimitsChange, TaskQuery
from gossipcache.results import UncheckedTask
from tests.cli.conftest import Run
from tests.fakes.node import NODE_ID
from tests.fakes.served import Served


def test_status_says_whether_the_node_serves(run: Run, home: Home) -> None:
    done = run("--format", "json", "node", "status")
    assert done.code == 4
    assert done.error["code"] == "unreachable"


def test_status_of_a_running_node(run: Run, fake: Served) -> None:
    done = run("--format", "json", "node", "status")
    assert (done.code, done.json["id"]) == (0, NODE_ID)


def test_stop_ends_the_node_and_may_be_repeated(run: Run, fake: Served) -> None:
    assert run("--format", "json", "node", "stop").json == {"stopped": True}
    assert fake.stopped.is_set()
    assert run("--format", "json", "node", "stop").json == {"stopped": False}


def test_members(run: Run, fake: Served) -> None:
    done = run("--format", "json", "members", "--expect", "1", "--timeout", "10s")
    (member,) = done.json["members"]
    assert {"id", "name", "address", "state", "roles", "incarnation", "zone"} <= set(member)
    assert run("members", "--expect", "3", "--timeout", "1s").code == 5


def test_members_of_a_node_that_does_not_come_up(run: Run) -> None:
    assert run("members", "--expect", "1", "--timeout", "100ms").code == 4
    assert run("members").code == 4


def test_ring(run: Run, fake: Served) -> None:
    done = run("--format", "json", "ring")
    assert set(done.json) == {"epoch", "schedulers", "owner", "replicas"}
    assert run("--format", "json", "ring", "-i", "x", "-t", "t").json["owner"] == NODE_ID
    assert f"owner {NODE_ID}" in run("--format", "human", "ring", "x").out


def test_store_commands(run: Run, fake: Served) -> None:
    fake.node.tasks["x", ""] = b"data"
    assert run("--format", "json", "ls").json["tasks"][0]["cid"] == "x"
    assert run("pin", "-i", "x").code == 0
    assert fake.node.pinned == {("x", "")}
    assert run("unpin", "x").code == 0
    assert not fake.node.pinned
    assert run("pin", "none").code == 3
    assert run("--format", "json", "gc", "--dry-run").json["dry_run"] is True
    assert run("--format", "json", "verify").json["checked"] == 1


def test_verify_that_finds_rot_exits_6_and_still_shows_the_result(run: Run, fake: Served) -> None:
    fake.node.bad = {"00": (1, 2)}
    done = run("--format", "json", "verify")
    assert done.code == 6
    assert done.json["bad"] == {"00": [1, 2]}
    assert done.err.startswith("error: 2 piece(s)")
    assert run("--format", "human", "verify").out.endswith("00 tag v1: 2 bad, 0 repaired\n")


def test_verify_that_could_not_check_a_task_exits_with_the_cause_unless_others_have_rotted(
    run: Run, fake: Served
) -> None:
    cause = "the system refused (No space left on device)"
    fake.node.unchecked = (UncheckedTask("big", "v1", "00", "no_space", cause),)
    done = run("--format", "json", "verify")
    assert (done.code, done.json["unchecked"][0]["cause"]) == (9, cause)
    assert done.err.startswith(f"error: 1 task(s) could not be checked: {cause}. TRY: ")
    fake.node.bad = {"00": (1, 2)}
    done = run("--format", "human", "verify")
    assert (done.code, done.out.splitlines()[-1]) == (6, f"big tag v1: not checked: {cause}")


def test_limits_are_shown_and_changed(run: Run, fake: Served) -> None:
    shown = run("--format", "human", "limits").out.splitlines()
    assert shown[0] == "upload    10.0 MiB/s, each task no limit"
    assert shown[2] == "uploads   2 running, 1 waiting, 64 at most at once"
    assert shown[3] == "big: upload 1.0 MiB/s, download no limit"
    assert run("limits", "--upload-rate", "5MiB/s", "--download-rate", "none").code == 0
    assert run("limits", "-i", "big", "-t", "v1", "--download-rate", "1MiB/s").code == 0
    assert run("limits", "-i", "big", "--reset").code == 0
    assert fake.node.requests == [
        LimitsChange(upload_rate=5 * 2**20, download_rate=0),
        (TaskQuery("big", "v1"), TaskLimitsChange(download_rate=2**20)),
        (TaskQuery("big"), TaskLimitsChange(reset=True)),
    ]


@pytest.mark.parametrize(
    "wrong",
    ["--upload-rate fast", "--upload-rate 1B/s", "--reset", "-i x --max-uploads 3",
     "-i x --reset --upload-rate none"],
)  # fmt: skip
def test_limits_that_make_no_sense_are_refused(run: Run, fake: Served, wrong: str) -> None:
    assert run("limits", *wrong.split()).code == 2


@pytest.mark.parametrize("command", ["pin x", "gc", "verify", "limits", "members", "ring"])
def test_housekeeping_starts_no_node(run: Run, home: Home, command: str) -> None:
    assert run(*command.split()).code == 4
    assert not home.is_held()


def test_no_start_is_respected(run: Run, home: Home) -> None:
    for command in ("stat x", "ls", "delete x", "export x y", "import y"):
        assert run(*command.split(), "--no-start").code == 4
    assert not home.is_held()


def test_a_home_that_names_a_cluster_gets_no_lone_node(run: Run, home: Home) -> None:
    home.prepare()
    home.config_path.write_text('join = ["127.0.0.1:1"]')
    assert run("ls").code == 4


def test_cluster_init_makes_a_private_key_once(run: Run, home: Home) -> None:
    done = run("--format", "json", "cluster", "init", "--delete-policy", "publisher")
    assert done.code == 0
    assert stat.S_IMODE(home.cluster_path.stat().st_mode) == 0o600
    cluster = home.cluster()
    assert cluster is not None
    assert cluster.secrets[0].hex() not in done.out + done.err
    assert run("cluster", "init").code == 8
    assert home.cluster() == cluster


def test_a_cluster_key_travels_to_another_home(run: Run, home: Home, tmp_path: Path) -> None:
    key = tmp_path / "carried.key"
    assert run("cluster", "key", "make", "-O", str(key)).code == 0
    assert run("cluster", "key", "show-path").code == 3
    assert run("cluster", "key", "import", str(key)).code == 0
    assert run("cluster", "key", "show-path").out == f"{home.cluster_path}\n"


def test_a_secret_is_rotated_in_three_steps(run: Run, home: Home) -> None:
    run("cluster", "init")
    assert run("cluster", "key", "rotate", "--switch").code == 8
    counts = []
    for step in ([], ["--switch"], ["--finish"]):
        done = run("--format", "json", "cluster", "key", "rotate", *step)
        assert done.code == 0
        cluster = home.cluster()
        assert cluster is not None
        assert not any(secret.hex() in done.out + done.err for secret in cluster.secrets)
        counts.append(len(cluster.secrets))
    assert counts == [2, 2, 1]


def test_another_clusters_key_does_not_slip_in(run: Run, home: Home, tmp_path: Path) -> None:
    run("cluster", "init")
    run("cluster", "key", "make", "-O", str(tmp_path / "other"))
    assert run("cluster", "key", "import", str(tmp_path / "other")).code == 8
    assert run("cluster", "key", "import", "--replace", str(tmp_path / "other")).code == 0
    assert run("cluster", "key", "import", str(tmp_path / "missing")).code == 2


def test_config_show_tells_where_values_come_from(
    run: Run, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.prepare()
    home.config_path.write_text('name = "n"\n[store]\nquota_bytes = "1GiB"')
    monkeypatch.setenv("GOSSIPCACHE_LOG_LEVEL", "debug")
    settings = run("--format", "json", "config", "show").json["settings"]
    shown = {row["key"]: (row["value"], row["origin"]) for row in settings}
    assert shown["name"] == ("n", "file")
    assert shown["store.quota_bytes"] == (2**30, "file")
    assert shown["log_level"] == ("debug", "environment")
    assert shown["listen"] == ("127.0.0.1:0", "default")


def test_config_mistakes_exit_2(run: Run, home: Home) -> None:
    home.prepare()
    home.config_path.write_text("nmae = 1")
    done = run("config", "show")
    assert done.code == 2
    assert "TRY: did you mean name." in done.err


def test_doctor_says_what_to_do(run: Run, home: Home) -> None:
    done = run("--format", "json", "doctor")
    assert done.code == 1
    checks = {check["check"]: check for check in done.json["checks"]}
    assert checks["disk"]["ok"]
    assert not checks["node"]["ok"]
    assert "node start" in checks["node"]["hint"]


def test_doctor_on_a_healthy_node(run: Run, fake: Served) -> None:
    done = run("--format", "json", "doctor")
    assert [check["check"] for check in done.json["checks"] if not check["ok"]] == []
    assert not fake.node.tasks, "the round trip leaves nothing"


def test_doctor_finds_a_clock_that_is_off(run: Run, fake: Served) -> None:
    fake.node.skews_s = (0.5, -90.0)
    done = run("--format", "json", "doctor")
    assert done.code == 1
    near, far = [check for check in done.json["checks"] if check["check"] == "clock far"]
    assert (near["ok"], far["ok"]) == (True, False)
    assert far["detail"].startswith("90.0 s behind")
    assert "NTP" in far["hint"]


def test_version_and_help(run: Run) -> None:
    assert run("--version").out == f"gossipcache, version {__version__}\n"
    assert "import" in run("--help").out
    assert run("import", "-h").code == 0


def test_stat_loads_nothing_heavy(fake: Served) -> None:
    code = (
        "import sys; from gossipcache.cli import main;"
        f"code = main(['--home', {str(fake.home.path)!r}, '--format', 'json', 'stat', 'x']);"
        "print(code, *sys.modules)"
    )
    fake.node.tasks["x", ""] = b"data"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    answer, modules = done.stdout.splitlines()
    assert json.loads(answer)["cid"] == "x"
    heavy = {"trio", "msgspec", "nacl", "cbor2", "h11", "rich", "asyncio", "platformdirs", "blake3"}
    assert not heavy & set(modules.split())


def test_the_reference_is_up_to_date() -> None:
    path = Path(__file__).parents[2] / "docs" / "cli.md"
    assert path.read_text() == reference(), "run: python -m gossipcache.cli.reference > docs/cli.md"
