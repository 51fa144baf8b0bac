"""Bugs in downloads."""

from __future__ import annotations

from sim.mutation.mutant import Mutant

_DOWNLOAD = "gossipcache.transfer.download"

TRANSFER = (
    Mutant(
        name="piece-not-verified",
        breaks="a lying parent's bytes are stored and exported",
        module=f"{_DOWNLOAD}.sink",
        old="if not self._tree.matches(index, data):",
        new="if False:",
        scenarios=("lying-parent",),
    ),
    Mutant(
        name="wrong-piece-counted",
        breaks="a piece that was thrown away counts as there",
        module=f"{_DOWNLOAD}.core",
        old="        if valid:\n            self._picker.found",
        new="        if True:\n            self._picker.found",
        scenarios=("lying-parent",),
    ),
    Mutant(
        name="lost-request-not-reassigned",
        breaks="an export hangs when a parent dies",
        module=f"{_DOWNLOAD}.core",
        old="            self._requests.release(request)\n        self._picker.remove(node)",
        new="        self._picker.remove(node)",
        scenarios=("parent-death",),
    ),
    Mutant(
        name="stalled-parent-waited-for",
        breaks="an export stands still for seconds because one of its parents hangs",
        module=f"{_DOWNLOAD}.core",
        old="        if self._picker.untried or not self._ready:",
        new="        if True:",
        scenarios=("stalled-parent",),
    ),
    Mutant(
        name="who-waits-is-told-nothing",
        breaks="a swarm that is large loses the one parent that has the task",
        module="gossipcache.transfer.promise",
        old="        return tells\n",
        new="        return False\n",
        scenarios=("tasks-one-slot",),
    ),
    Mutant(
        name="promises-believed-for-ever",
        breaks="a parent that promises every piece and gives none keeps its place",
        module=f"{_DOWNLOAD}.wait",
        old="now + max(PATIENCE_S, PATIENCE_FACTOR * wait_s))",
        new='float("inf"))',
        scenarios=("endless-promise",),
    ),
    Mutant(
        name="piece-asked-twice",
        breaks="every parent sends every piece",
        module=f"{_DOWNLOAD}.picker",
        old="        index = self._choose(candidates)\n        self.unrequested &= ~(1 << index)\n",
        new="        index = self._choose(candidates)\n",
        scenarios=("two-parents",),
    ),
    Mutant(
        name="partial-export-shown",
        breaks="a program reads an exported file that is half written",
        module="gossipcache.node.exporting",
        old="    try:\n        async with joined(",
        new="    try:\n        await run(output.commit)\n        async with joined(",
        scenarios=("parent-death",),
    ),
    Mutant(
        name="export-renamed-before-sync",
        breaks="a synced export has holes after a power loss",
        module="gossipcache.transfer.files.output",
        old="            if sync:\n                self._file.sync()\n",
        new="",
        scenarios=("child-power-loss",),
    ),
    Mutant(
        name="new-holder-not-announced",
        breaks="whoever fetched a task never becomes a parent of others",
        module="gossipcache.node.assembly",
        old="                lambda task_id: announce(self.services, task_id),\n",
        new="                lambda _task_id: None,\n",
        scenarios=("two-parents",),
    ),
)
