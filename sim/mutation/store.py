"""Bugs in what a disk must bring back, and in what leaves it."""

from __future__ import annotations

from sim.mutation.mutant import Mutant

_STORE = "gossipcache.transfer.store"

STORE = (
    Mutant(
        name="bitmap-before-data",
        breaks="after a power loss a node takes pieces for there that are zeros",
        module=f"{_STORE}.filling",
        old="        with closing(self._content.open_data(task_id)) as file:\n"
        "            file.sync()\n\n",
        new="",
        scenarios=("child-power-loss-midway",),
    ),
    Mutant(
        name="settled-before-sync",
        breaks="after a power loss a node takes a copy for whole that is zeros",
        module=f"{_STORE}.filling",
        old="            with closing(self._content.open_data(task_id)) as file:\n"
        "                file.sync()\n        except",
        new="            pass\n        except",
        scenarios=("child-power-loss",),
    ),
    Mutant(
        name="import-before-sync",
        breaks="an import is acknowledged whose bytes a power loss takes back",
        module=f"{_STORE}.intake",
        old='        with closing(self._disk.open(staging.data, "read")) as file:\n'
        "            file.sync()\n",
        new="",
        scenarios=("cluster-power-loss",),
    ),
    Mutant(
        name="unpublished-shown",
        breaks="an import that died half-way is shown as a task",
        module=f"{_STORE}.store",
        old="if unpublished or task.published]",
        new="]",
        scenarios=("import-cut-off",),
    ),
    Mutant(
        name="last-copy-evicted",
        breaks="a full disk throws away the only copy there is",
        module="gossipcache.node.evicting",
        old="        return await may_drop(services, proposal.task_id, others=others)",
        new="        return True",
        scenarios=("quota-of-the-last-copy",),
    ),
    Mutant(
        name="rot-served",
        breaks="a rotten copy is exported as it is",
        module="gossipcache.transfer.files.local_export",
        old="        if state.digest() != self._tree.piece(index):",
        new="        if False:",
        scenarios=("bit-rot",),
    ),
    Mutant(
        name="torn-entry-believed",
        breaks="a node does not start any more after a power loss",
        module="gossipcache.journal",
        old="    if _checksum(prefix[_SUMMED_PART], body) != checksum:\n        return None\n",
        new="",
        scenarios=("rotten-index",),
    ),
)
