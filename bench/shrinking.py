"""How far and how fast failing schedules shrink: `python -m bench.shrinking`.

The failures are planted: a dozen faults strike ten bare nodes (the scenario `weather`), and each
scenario here claims something of their views that cannot hold in such weather. Each claim is
played with each seed until it breaks, and the schedule is made smaller with a budget of processor
time, which does not hang on what else the machine does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import click

from gossipcache.dht.membership.member import Member
from sim.bare.scenario import bare_scenario
from sim.bare.stage import BareStage
from sim.commands.options import seed_range, seeds_option, told
from sim.recording import Recording
from sim.scenarios.weather import weather
from sim.shrinking.trial import Budget, shrink

States = dict[str, str]
"""How one node sees each other."""
Claim = Callable[[States, str, str], bool]
"""Whether a change of one node's view, from a state to another, is as claimed."""

CLAIMS: dict[str, Claim] = {
    "nobody dies": lambda view, before, now: now != "dead",
    "the dead stay dead": lambda view, before, now: (before, now) != ("dead", "alive"),
    "no suspicion is wrong": lambda view, before, now: (before, now) != ("suspect", "alive"),
    "never two dead at once": lambda view, before, now: _count(view, "dead") < 2,
    "never three suspects at once": lambda view, before, now: _count(view, "suspect") < 3,
    "nobody leaves while one is dead": lambda view, before, now: (
        not (_count(view, "dead") and _count(view, "left"))
    ),
}


def _count(view: States, state: str) -> int:
    return sum(each == state for each in view.values())


def _plant(name: str, claim: Claim) -> None:
    @bare_scenario(name, nodes=10)
    def claimed(stage: BareStage) -> None:
        """A claim that weather breaks."""
        views: dict[str, States] = {}

        def watch(viewer: str, member: str, seen: Member) -> None:
            view = views.setdefault(viewer, {})
            before, view[member] = view.get(member, "alive"), seen.state
            if not claim(view, before, seen.state):
                stage.report(f"not so: {name}")

        stage.world.on_change.append(watch)
        weather(stage)


@click.command()
@seeds_option("1..5")
@click.option("--seconds", type=float, default=10.0, show_default=True, help="Processor time.")
def main(seeds: str, seconds: float) -> None:
    """Shrinks a failure of each claim and seed, and prints the medians."""
    with told():
        wanted = seed_range(seeds)
    found: list[tuple[int, int, int, float]] = []
    for name, claim in CLAIMS.items():
        _plant(name, claim)
        for seed in wanted:
            given = Recording(scenario=name, seed=seed, nodes=10)
            less = shrink(given, Budget(seconds), clock=time.process_time)
            if less is None:
                click.echo(f"{name:32} seed {seed:3}  holds")
                continue
            found.append((less.before, less.after, less.runs, less.seconds))
            click.echo(
                f"{name:32} seed {seed:3}  {less.before:2} faults → {less.after}  "
                f"{less.runs:3} runs  {less.seconds:5.1f} s"
            )
    before, after, runs, spent_s = (median(column) for column in zip(*found, strict=True))
    click.echo(
        f"{len(found)} failures, medians: {before:g} faults → {after:g} in {runs:g} runs and "
        f"{spent_s:.1f} s of processor time"
    )


if __name__ == "__main__":
    main()
