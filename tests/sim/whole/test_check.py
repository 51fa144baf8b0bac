"""The harness finds what is wrong: planted failures are reported, idle faults told."""

from __future__ import annotations

import logging
from contextlib import suppress

import pytest
import trio

from gossipcache.errors import GossipcacheError
from gossipcache.ids import task_id_of
from gossipcache.node.node import Node
from gossipcache.schedule.announcement import Statement, Verifier
from sim.chaos.storm import all_is_well
from sim.faults import DiskFull, ForgedAnnouncements, Kill, Restart
from sim.registry import Drive, Report, Scenario, run
from sim.storage import tree
from sim.whole.machine import DATA
from sim.whole.scenario import Body, Stage
from sim.whole.scenario import play as play_body
from sim.whole.world import HOME


def play(body: Body) -> Report:
    report = Report("test", seed=1, nodes=3)
    play_body(body, Drive(report), limit_s=300.0)
    return report


def test_a_lost_task_is_a_violation() -> None:
    async def body(stage: Stage) -> None:
        await stage.world.start_cluster(stage.nodes)
        await stage.world.import_content("n0", "only copy", 1000)
        await stage.faults.inject(Kill(node="n0"))
        await stage.world.export("n1", "only copy", timeout_s=20)

    report = play(body)
    assert len(report.violations) == 1
    assert "the scenario stopped" in report.violations[0]


def test_a_node_that_ends_by_itself_is_a_violation() -> None:
    async def body(stage: Stage) -> None:
        machine = stage.world.add_machine()
        file = machine.disk.open(HOME / "store", "create")
        file.write_at(0, b"not a folder")
        await stage.world.start(machine.name)

    report = play(body)
    assert any("n0 failed" in violation for violation in report.violations)


def test_wrong_bytes_are_a_violation() -> None:
    async def body(stage: Stage) -> None:
        await stage.world.start_cluster(stage.nodes)
        await stage.world.import_content("n0", "a", 1000)
        stage.world.contents["a", ""] = bytes(1000)
        await stage.world.export("n1", "a")

    report = play(body)
    assert any("wrong bytes" in violation for violation in report.violations)


def test_an_output_that_is_there_in_part_is_a_violation() -> None:
    async def body(stage: Stage) -> None:
        world = stage.world
        machine = world.add_machine()
        world.witness.expect(("a", ""), b"all of it")
        with world.witness.output(machine.name, DATA / "out", ("a", "")):
            machine.put_file("out", b"all of")

    assert any("missing bytes" in violation for violation in play(body).violations)


def test_serving_a_wrong_byte_is_a_violation() -> None:
    async def body(stage: Stage) -> None:
        world = stage.world
        await world.start_cluster(stage.nodes)
        await world.import_content("n0", "a", 1000)
        data = world.node("n0").services.store.data_path(task_id_of("a", ""))
        inode = tree.file_at(world.machines["n0"].disk.medium.root, data)
        inode.data[500] ^= 1  # a fault that no injector knows of
        with suppress(GossipcacheError):
            await world.export("n1", "a", timeout_s=20)

    assert any("n0 serves wrong bytes" in violation for violation in play(body).violations)


def test_an_acknowledged_task_that_cannot_be_had_is_a_violation() -> None:
    async def body(stage: Stage) -> None:
        world = stage.world
        await world.start_cluster(stage.nodes)
        # Too large to be had of a keeper that holds it.
        await world.import_content("n0", "a", 70_000)
        world.node("n0").services.announcer.drop(task_id_of("a", ""))  # it no longer says so
        for name in ("n1", "n2"):
            await stage.faults.inject(Kill(node=name))
            world.wipe(name)
            await stage.faults.inject(Restart(node=name))
        await world.wait_views(stage.nodes)

    assert any("was acknowledged" in violation for violation in play(body).violations)


def test_a_task_that_returns_after_its_deletion_is_a_violation() -> None:
    async def body(stage: Stage) -> None:
        world = stage.world
        await world.start_cluster(stage.nodes)
        await world.import_content("n0", "a", 1000)
        world.witness.deleting(("a", ""))
        world.witness.deleted(("a", ""), {"n0"})  # as if it had been; it has not
        await trio.sleep(1)

    violations = play(body).violations
    assert any("n0 shows 'a' again" in violation for violation in violations)
    assert any("still finds 'a'" in violation for violation in violations)


def test_an_announcement_taken_from_a_liar_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    def gullible(self: Verifier, statement: Statement) -> None:
        """Judges nothing but the signature."""

    async def body(stage: Stage) -> None:
        await stage.world.start_cluster(stage.nodes)
        await stage.world.import_content("n0", "a", 1000)
        await stage.faults.inject(ForgedAnnouncements(node="n1", victim="n0", cid="a"))

    monkeypatch.setattr(Verifier, "_judge", gullible)
    assert any("judged a batch None" in violation for violation in play(body).violations)


def test_a_wrong_tree_is_a_violation() -> None:
    async def body(stage: Stage) -> None:
        world = stage.world
        await world.start_cluster(stage.nodes)
        await world.import_tree("n0", "t", {"a": b"1", "b/c": b"2", "d": None, "e": "a"})
        await world.export("n1", "t")
        world.witness.model.trees["t", ""]["b/c"] = b"3"
        await world.export("n2", "t")

    violations = play(body).violations
    assert len(violations) == 2  # one export is the check at the end
    assert all("wrong or missing bytes" in violation for violation in violations)


def test_a_scenario_that_does_not_end_is_a_violation() -> None:
    async def body(stage: Stage) -> None:
        await trio.Event().wait()

    report = play(body)
    assert any("time limit" in violation for violation in report.violations)


def test_a_fault_that_nobody_met_makes_a_run_vacuous() -> None:
    async def body(stage: Stage) -> None:
        await stage.world.start_cluster(stage.nodes)
        await stage.faults.inject(DiskFull(node="n0", free_bytes=1 << 30, for_s=1.0))

    report = play(body)
    assert report.vacuous
    assert report.faults == {"disk-full": {"armed": 1, "bit": 0}}
    assert report.violations == []


def test_a_view_that_goes_back_is_a_violation() -> None:
    async def body(stage: Stage) -> None:
        world = stage.world
        await world.start_cluster(stage.nodes)
        membership = world.node("n0").services.membership
        member = membership.member(world.machines["n1"].identity.node_id)
        assert member is not None
        assert membership._core is not None
        for state in ("dead", "alive"):
            membership._core.table.put(member.in_state(state))
            membership._note(member.in_state(state))
            await trio.sleep(0.01)

    assert any("state of n1 went back" in violation for violation in play(body).violations)


def test_a_last_copy_that_is_dropped_is_a_violation() -> None:
    async def body(stage: Stage) -> None:
        world = stage.world
        await world.start_cluster(stage.nodes)
        await world.import_content("n0", "a", 1000)
        await world.export("n1", "a")
        await trio.sleep(1)
        for name in ("n0", "n1"):
            await world.delete(name, "a", local=True, force=True)
            await trio.sleep(1)

    violations = play(body).violations
    assert [v for v in violations if "dropped the last" in v] == violations
    assert "n1 dropped the last complete copy of 'a'" in violations[0]


def test_a_piece_that_was_stored_unverified_is_a_violation() -> None:
    async def body(stage: Stage) -> None:
        world = stage.world
        await world.start_cluster(stage.nodes)
        await world.import_content("n0", "a", 1000)
        stored = world.witness.model.stored
        stored.update({task: bytes(1000) for task in stored})

    assert any("says that it has piece 0" in violation for violation in play(body).violations)


def test_an_error_that_a_node_logs_is_a_violation() -> None:
    async def fail(_node: Node) -> None:
        try:
            raise KeyError("n9")
        except KeyError:
            logging.getLogger("gossipcache.planted").exception("a handler failed")

    async def body(stage: Stage) -> None:
        await stage.world.start_cluster(stage.nodes)
        await stage.world.on("n0", fail)

    (violation,) = play(body).violations
    assert "n0 logged an error: a handler failed: KeyError: 'n9'" in violation


def test_an_error_of_a_full_disk_is_none() -> None:
    async def fail(_node: Node) -> None:
        logging.getLogger("gossipcache.planted").error("OSError: [Errno 28] no space")

    async def body(stage: Stage) -> None:
        await stage.world.start_cluster(stage.nodes)
        await stage.world.on("n0", fail)

    assert play(body).violations == []


def test_too_many_open_streams_are_a_violation() -> None:
    async def body(stage: Stage) -> None:
        world = stage.world
        await world.start_cluster(stage.nodes)
        life, listen = world.machines["n1"].life, world.machines["n0"].config.listen
        assert life is not None
        assert listen is not None
        for _ in range(300):
            await life.host.dial(listen)
        await trio.sleep(0.2)

    assert any("open streams, more than" in violation for violation in play(body).violations)


def test_too_much_gossip_is_a_violation() -> None:
    async def body(stage: Stage) -> None:
        await stage.world.start_cluster(stage.nodes)
        stage.world.node("n0").metrics.count("datagram_bytes_sent", 10_000_000)
        await trio.sleep(11)

    assert any("gossip bytes a second" in violation for violation in play(body).violations)


def test_a_record_that_is_not_back_after_the_healing_is_a_violation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body(stage: Stage) -> None:
        await stage.world.start_cluster(stage.nodes)
        await stage.world.import_content("n0", "a", 1000)
        monkeypatch.setattr(stage.world.node("n1").services.records, "local", lambda _: None)
        await all_is_well(stage.world)

    assert any("all records are on all" in violation for violation in play(body).violations)


def test_a_node_that_stays_away_after_the_healing_is_a_violation() -> None:
    async def body(stage: Stage) -> None:
        await stage.world.start_cluster(stage.nodes)
        await stage.faults.inject(Kill(node="n1"))
        await all_is_well(stage.world)

    assert any("do not run after the healing" in violation for violation in play(body).violations)


def test_a_run_that_breaks_off_is_a_violation() -> None:
    def drive(_drive: Drive) -> None:
        raise ZeroDivisionError("a mistake of the scenario")

    report = run(Scenario("broken", "", 3, drive), seed=1)
    assert report.violations == ["the run broke off: ZeroDivisionError: a mistake of the scenario"]
