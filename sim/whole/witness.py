"""What users were promised, and every event at which a promise can be seen broken.

The witness keeps a model (what was imported, acknowledged, deleted) and looks on at each
change of a disk, each byte that is served and each change of a node's view. It only looks: no
event of a run depends on it.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePath

from gossipcache.env import DiskFile
from gossipcache.ids import task_id_of
from gossipcache.results import MemberView
from gossipcache.transfer.store.packs import Part
from sim.storage.disk import SimDisk, SimFile

Task = tuple[str, str]
"""cid and tag."""
Tree = dict[str, bytes | str | None]
"""A folder: file contents, link targets (str) and empty folders (None) by relative path. Files
whose name ends in `.sh` are executable."""
Content = bytes | Tree
_RANKS = {"alive": 0, "suspect": 1, "dead": 2, "left": 3}
"""Of one incarnation a member's state only rises."""
Keepers = tuple[tuple[bytes, ...], ...]
"""Of some tasks, owner first."""


Lie = Callable[[bytes], bytes]
"""What a liar sends in the place of true bytes."""


@dataclass(eq=False)
class Output:
    """A path that an export writes to: nothing stands there, or all of the content."""

    machine: str
    path: PurePath
    task: Task
    seen: bool = False
    wrong: bool = False


@dataclass
class Model:
    """What the cluster owes its users."""

    contents: dict[Task, bytes] = field(default_factory=dict)
    """What every imported task reads as; for a tree its tar."""
    trees: dict[Task, Tree] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    """What pieces are cut from, by task id in hex."""
    acknowledged: dict[Task, None] = field(default_factory=dict)
    """Imports that returned, and that no delete was asked of since."""
    deleted: dict[Task, set[str]] = field(default_factory=dict)
    """Deletions that returned, and the machines that were said to have dropped their copy."""


class Witness:
    """Looks on; tells `report` what it sees broken."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.model = Model()
        self.lies: dict[str, Lie] = {}
        """What machines that lie about pieces do to the bytes they serve."""
        self._set_back: dict[Task, set[str]] = {}
        """By task that is being deleted: machines whose disk became an old one meanwhile."""
        self._report = report
        self._outputs: list[Output] = []
        self._views: dict[tuple[object, str], tuple[int, int]] = {}
        self._keepers: dict[str, Keepers] = {}
        self.claimed: dict[str, int] = {}
        """The highest incarnation that each member is known to have claimed, by its id in hex."""

    # Promises.

    def expect(self, task: Task, content: bytes) -> None:
        """`content` is about to be imported as a file: where it was deleted it may be shown."""
        self.model.deleted.get(task, set()).clear()
        self.model.contents[task] = content
        self.model.stored[task_id_of(*task).hex()] = content

    def acknowledge(self, task: Task) -> None:
        """An import returned."""
        self.model.acknowledged[task] = None
        self.model.deleted.pop(task, None)

    def expect_tree(self, task: Task, tree: Tree, tar: bytes, stored: bytes) -> None:
        """A folder was imported; `tar` is what it reads as on the node that has it."""
        if _untarred(tar) != tree:
            self._report(f"the tree {task[0]!r} does not read as what was imported")
        self.model.trees[task] = tree
        self.model.contents[task] = tar
        self.model.stored[task_id_of(*task).hex()] = stored

    def deleting(self, task: Task) -> None:
        """A delete begins: until it returns nothing is promised."""
        self.model.acknowledged.pop(task, None)
        self._set_back[task] = set()

    def deleted(self, task: Task, confirmed: set[str]) -> None:
        """A delete returned."""
        self.model.deleted[task] = confirmed - self._set_back.pop(task, set())

    def contested(self, task: Task) -> None:
        """Rival manifests stand: until its users name one, the task is promised to nobody."""
        self.model.acknowledged.pop(task, None)

    def restored(self, name: str) -> None:
        """A machine's disk is an old one again: what it had dropped may be there, for a while."""
        for confirmed in self.model.deleted.values():
            confirmed.discard(name)
        for names in self._set_back.values():
            names.add(name)

    # Events.

    def serving(self, name: str, file: DiskFile, offset: int, data: bytes) -> bytes:
        """Bytes leave `name` straight from a file: they are what was imported."""
        start, task = 0, None
        if isinstance(file, Part):
            start, task, file = file.start, file.task_id.hex(), file.file
        assert isinstance(file, SimFile)
        if task is None:
            task = next((name for name in file.path.parts if len(name) == 64), "")
        stored = self.model.stored.get(task)
        sound = stored is None or data == stored[offset : offset + len(data)]
        if not sound and not file.is_rotten(start + offset, len(data)):
            self._report(f"{name} serves wrong bytes at {offset} of {file.path}")
        lie = self.lies.get(name)
        return data if lie is None else lie(data)

    def disk_changed(self, name: str, disk: SimDisk) -> None:
        """Something changed on a disk: no output is there in part."""
        for output in self._outputs:
            if output.machine == name and not output.seen:
                self._look(output, disk)

    def sees(self, life: object, viewer: str, view: MemberView) -> bool:
        """A node's view of a member: its (incarnation, state) never goes back. Whether the
        incarnation is news."""
        now = view.incarnation, _RANKS[view.state]
        before = self._views.get((life, view.id), (0, 0))
        if now < before:
            what = "incarnation" if now[0] < before[0] else "state"
            self._report(f"on {viewer} the {what} of {view.name} went back")
        self._views[life, view.id] = now
        return now[0] > before[0]

    def rings(self, viewer: str, epoch: str, keepers: Keepers) -> None:
        """Whom a node names as keepers of some tasks: all that see this ring name the same."""
        if self._keepers.setdefault(epoch, keepers) != keepers:
            self._report(f"{viewer} names other keepers than another node on the same ring")

    def claims(self, member: str, incarnation: int) -> int:
        """A member claims an incarnation; the highest that it ever did."""
        self.claimed[member] = max(self.claimed.get(member, 0), incarnation)
        return self.claimed[member]

    @contextmanager
    def output(self, name: str, path: PurePath, task: Task) -> Iterator[Output]:
        """An export to `path` of a machine is under way."""
        output = Output(name, path, task)
        self._outputs.append(output)
        try:
            yield output
        finally:
            self._outputs.remove(output)

    def is_whole(self, output: Output, disk: SimDisk) -> bool:
        """Whether all of the content stands at the output; reports what is there in part."""
        output.seen = False
        return self._look(output, disk, is_new=True)

    def _look(self, output: Output, disk: SimDisk, *, is_new: bool = False) -> bool:
        """Whether something stands there. What is new was verified; later it may rot."""
        if disk.stamp(output.path) is None:
            return False
        output.seen = True
        with disk.unhindered():
            found: Content = get_content(disk, output.path)
        expected = self.model.trees.get(output.task, self.model.contents.get(output.task))
        may_be_wrong = not is_new and disk.has_rotten(output.path)
        if found != expected and not output.wrong and not may_be_wrong:
            output.wrong = True
            self._report(
                f"the export of {output.task[0]!r} on {output.machine} has wrong or missing bytes"
            )
        return True


def put_tree(disk: SimDisk, path: PurePath, tree: Tree) -> None:
    """Writes a folder."""
    disk.make_folder(path)
    for name, content in tree.items():
        place = path / name
        disk.make_folder(place if content is None else place.parent)
        if isinstance(content, str):
            disk.symlink(content, place)
        elif content is not None:
            file = disk.open(place, "create")
            file.write_at(0, content)
            file.sync()
            file.close()
            disk.set_mode(place, 0o755 if name.endswith(".sh") else 0o644)


def get_content(disk: SimDisk, path: PurePath) -> Content:
    """The file or folder at `path`."""
    stamp = disk.stamp(path)
    assert stamp is not None
    if stamp.kind == "file":
        file = disk.open(path, "read")
        content = file.read_at(0, stamp.size)
        file.close()
        return content
    found: Tree = {}
    for name in disk.list_folder(path):
        inner = disk.stamp(path / name)
        assert inner is not None
        if inner.kind == "link":
            found[name] = disk.read_symlink(path / name)
            continue
        if inner.kind == "file" and name.endswith(".sh") is not bool(inner.mode & 0o100):
            found[f"{name} has a wrong mode"] = None
        part = get_content(disk, path / name)
        if isinstance(part, bytes):
            found[name] = part
        else:
            found.update({f"{name}/{each}": held for each, held in part.items()} or {name: None})
    return found


def _untarred(tar: bytes) -> Tree:
    """A tar as a tree; folders that are not empty are named by what is in them."""
    found: Tree = {}
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for member in archive:
            if member.issym():
                found[member.name] = member.linkname
            elif member.isdir():
                found[member.name] = None
            else:
                content = archive.extractfile(member)
                assert content is not None
                found[member.name] = content.read()
    inside = {str(parent) for name in found for parent in PurePath(name).parents}
    return {name: held for name, held in found.items() if held is not None or name not in inside}
