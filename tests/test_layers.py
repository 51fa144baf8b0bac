"""Imports go one way, down the written layer order, and only the named edges cross features."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "gossipcache"

# Lowest first. A module may import modules of lower layers, and of its own layer within the
# same feature (the same top-level folder or file).
LAYERS: list[set[str]] = [
    {"errors"},
    {"ids", "units"},
    {"wire", "config", "home"},
    {"identity", "cluster", "metrics", "env", "requests", "results", "settings", "log"},
    {"manifest", "journal", "swarm"},
    {"messages"},
    {"link.interface"},
    {"dht", "schedule", "transfer", "link"},
    {"node"},
    {"control"},
    {"network", "disk"},
    {"machine", "client"},
    {"launch"},
    {"embed"},
    {"daemon", "api", "demo", "doctor"},
    {"cli"},
    {"__main__"},
]
FEATURE_EDGES = {("schedule", "dht.ring")}
FEATURES = {"dht", "schedule", "transfer", "link"}
CORES = {
    "swim", "ring", "member", "broadcast", "replication", "scheduler", "announcer", "parents",
    "picker", "download", "digest_tree", "handshake", "frames",
}  # fmt: skip
NO_REAL_WORLD = {"asyncio", "time", "os", "random", "threading", "socket", "secrets", "select"}
REAL_WORLD_MODULES = {
    "network", "disk", "machine", "home", "control", "client", "launch", "embed", "daemon", "api",
    "cli", "demo", "doctor", "log",
}  # fmt: skip


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


@pytest.mark.parametrize("module", [name for name in modules() if name])
def test_only_the_seams_touch_the_real_world(module: str) -> None:
    if module.partition(".")[0] in REAL_WORLD_MODULES:
        return
    allowed = {"env": {"random"}}
    reached = imports(modules()[module]) & NO_REAL_WORLD - allowed.get(module, set())
    for name in sorted(reached):
        if name == "random":
            source = modules()[module].read_text()
            uses = {
                node.attr
                for node in ast.walk(ast.parse(source))
                if isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "random"
            }
            assert uses <= {"Random"}, f"{module} uses global randomness"
        elif name == "threading":
            continue
        else:
            pytest.fail(f"gossipcache.{module} imports {name}; it must come through Env")


def test_cores_do_not_import_trio() -> None:
    for module, path in modules().items():
        if module.partition(".")[2] in CORES:
            assert "trio" not in imports(path), f"{module} is a core and must not import trio"


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
