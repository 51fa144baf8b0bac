"""Imports go one way, down the written layer order, and only the named edges cross features."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "gossipcache"

# Lowest first. A module may import modules of lower layers, and of its own layer within the
# same feature (the same top-level folder or file).
LAYERS: list[set[str]] = [
    {"errors"},
    {"ids", "units", "budget", "keyfiles", "deviation"},
    {"wire", "config", "home", "pacing"},
    {"identity", "cluster", "metrics", "env", "requests", "results", "settings", "log"},
    {"manifest", "journal", "swarm"},
    {"charter"},
    {"admission"},
    {"messages"},
    {"link.interface"},
    {"dht", "schedule", "transfer", "link"},
    {"node"},
    {"control"},
    {"datagrams", "hosts", "threads"},
    {"network", "disk", "unix_http"},
    {"machine", "client"},
    {"launch"},
    {"embed"},
    {"daemon", "api", "demo", "doctor"},
    {"cli"},
    {"__main__"},
]
FEATURE_EDGES = {("schedule", "dht.ring")}
FEATURES = {"dht", "schedule", "transfer", "link"}
# All other modules of the features are cores, plain values or synchronous work.
SHELLS = {
    "dht.membership.charters", "dht.membership.service", "dht.membership.syncing",
    "dht.membership.transport",
    "dht.records.glances", "dht.records.log", "dht.records.performing", "dht.records.service",
    "schedule.alarm", "schedule.repairs", "schedule.scheduling", "schedule.service",
    "schedule.session",
    "transfer.download.checks", "transfer.download.client", "transfer.download.connection",
    "transfer.download.downloads",
    "transfer.download.store_end",
    "transfer.limits", "transfer.server", "transfer.store.arrivals", "transfer.upload",
    "link.bulk", "link.channel", "link.connection", "link.control", "link.loopback", "link.pool",
    "link.tls",
}  # fmt: skip
REAL_WORLD = {
    "asyncio", "concurrent", "datetime", "fcntl", "http", "mmap", "multiprocessing", "os",
    "platform", "platformdirs", "random", "secrets", "select", "shutil", "signal", "socket",
    "stat", "subprocess", "sys", "tempfile", "threading", "time", "urllib", "uuid",
    "gossipcache.home", "gossipcache.keyfiles", "pathlib.Path", "random.Random", "trio.Path",
    "trio.from_thread",
    "trio.open_file", "trio.open_tcp_listeners", "trio.open_tcp_stream", "trio.run_process",
    "trio.socket", "trio.to_thread", "nacl.utils",
}  # fmt: skip
REAL_WORLD_MODULES = {
    "datagrams", "hosts", "network", "disk", "unix_http", "machine", "home", "keyfiles", "control",
    "client", "launch", "embed", "daemon", "api", "cli", "demo", "doctor", "log", "__main__",
}  # fmt: skip
ALLOWED: dict[str, set[str]] = {
    # OpenSSL reads a key from a file only; the dates of a certificate are constants.
    "link.tls": {"tempfile", "datetime"},
    # Locks between workers.
    "transfer.store.catalogue": {"threading"},
    "transfer.store.content": {"threading"},
    "transfer.store.intake": {"threading"},
    "transfer.store.outputs": {"threading"},
    "transfer.store.packs": {"threading"},
    "transfer.store.removal": {"threading"},
    "transfer.store.staging": {"threading"},
    "transfer.files.local_export": {"threading"},
    "transfer.download.whole_digest": {"threading"},
    "transfer.download.downloads": {"threading"},
}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below `gossipcache`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        found[name if name != "__init__" else ""] = path
    return found


def imports(path: Path) -> set[str]:
    """Every module that `path` imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def own_imports(path: Path) -> set[str]:
    known = modules()
    names = {name.removeprefix("gossipcache.") for name in imports(path) if "gossipcache." in name}
    return {name for name in names if name in known}


def layer_of(module: str) -> int:
    for level, names in enumerate(LAYERS):
        if module in names:
            return level
    top = module.partition(".")[0]
    for level, names in enumerate(LAYERS):
        if top in names:
            return level
    pytest.fail(f"gossipcache.{module} has no place in the layer order; give it one")


@pytest.mark.parametrize("module", [name for name in modules() if name])
def test_imports_go_down(module: str) -> None:
    feature = module.partition(".")[0]
    for imported in sorted(own_imports(modules()[module])):
        other = imported.partition(".")[0]
        if other == feature:
            continue
        if feature in FEATURES and other in FEATURES and imported != "link.interface":
            assert (feature, imported) in FEATURE_EDGES, f"{module} imports {imported}"
            continue
        assert layer_of(imported) < layer_of(module), f"{module} imports {imported}, not below it"


def test_no_import_cycles() -> None:
    graph = {name: own_imports(path) for name, path in modules().items() if name}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"import cycle: {' > '.join((*trail, name))}"
        if name not in done:
            for imported in sorted(graph[name]):
                visit(imported, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def reached(path: Path) -> set[str]:
    """What `path` imports or names by its dotted name; of `random` only the use of its global
    generator counts, not the type of a generator that is handed in."""
    tree = ast.parse(path.read_text())
    dotted = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    named = imports(path) | dotted
    if not any(name.startswith("random.") and name != "random.Random" for name in named):
        named.discard("random")
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    named.discard("random.Random")
    return named | (calls & {"open", "input", "print", "random.Random"})


@pytest.mark.parametrize("module", [name for name in modules() if name])
def test_only_the_seams_touch_the_real_world(module: str) -> None:
    if module.partition(".")[0] in REAL_WORLD_MODULES:
        return
    found = reached(modules()[module]) & (REAL_WORLD | {"open", "input", "print"})
    allowed = ALLOWED.get(module, set())
    assert found <= allowed, f"{module} reaches {found - allowed}; it must come through Env"
    assert found == allowed, f"{module} no longer needs {allowed - found}"


@pytest.mark.parametrize("module", sorted(modules()))
def test_only_shells_run(module: str) -> None:
    """Cores neither import trio nor wait, and know nothing of the shells that drive them."""
    if module.partition(".")[0] not in FEATURES | {"messages", "manifest", "journal"}:
        return
    path = modules()[module]
    uses_trio = "trio" in imports(path)
    if module in SHELLS:
        assert uses_trio, f"{module} is no shell any more; take it off the list"
        return
    assert not uses_trio, f"{module} is no shell and must not import trio"
    assert not own_imports(path) & SHELLS, f"{module} is no shell and must not import one"
    if module != "link.interface":
        waits = (ast.AsyncFunctionDef, ast.Await, ast.AsyncWith, ast.AsyncFor)
        assert not any(isinstance(node, waits) for node in ast.walk(ast.parse(path.read_text())))


def test_membership_and_records_meet_at_the_ring_only() -> None:
    for module, path in modules().items():
        for one, other in (("membership", "records"), ("records", "membership")):
            if module.startswith(f"dht.{one}"):
                across = {name for name in own_imports(path) if name.startswith(f"dht.{other}")}
                assert not across, f"{module} imports {across}"


def test_a_command_starts_without_the_node() -> None:
    heavy = {"trio", "msgspec", "nacl", "cbor2", "blake3", "cryptography", "rich", "hashlib"}
    code = "import sys, gossipcache.cli; print(*{name.partition('.')[0] for name in sys.modules})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(ended.stdout.split())


def test_nothing_imports_the_simulator() -> None:
    for module, path in modules().items():
        assert not any(name.split(".")[0] in ("sim", "bench", "tests") for name in imports(path)), (
            module
        )


def test_no_file_outgrows_a_screenful_of_screens() -> None:
    for folder in ("gossipcache", "sim", "bench"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            length = len(path.read_text().splitlines())
            assert length <= 450, f"{path.relative_to(ROOT)} has {length} lines; split it"
