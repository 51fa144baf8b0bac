"""Every command and example in the README runs, and prints what the README shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 60
MIB = 2**20


@dataclass(frozen=True)
class Step:
    """A command in a console block, the machine it is typed on, and what it prints."""

    machine: str
    command: str
    output: list[str]


def blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def steps(block: str) -> Iterator[Step]:
    step: Step | None = None
    for line in block.splitlines():
        prompt = re.fullmatch(r"([\w-]*)\$ (.*)", line)
        if prompt is not None:
            if step is not None:
                yield step
            step = Step(prompt[1], prompt[2], [])
        else:
            assert step is not None, "output before the first command"
            step.output.append(line)
    if step is not None:
        yield step


def masked(lines: list[str]) -> list[str]:
    """What differs from run to run taken out: numbers, digests, ids, paths, widths of columns."""
    text = "\n".join(lines)
    for pattern, mask in (
        (r"~?/[\w./-]+", "PATH"),
        (r"\b[0-9a-f]{8,}\b", "HEX"),
        (r"\d+(\.\d+)*", "N"),
        (r"N ([KMGT]iB|B)", "SIZE"),
        (r" {2,}", " "),
    ):
        text = re.sub(pattern, mask, text)
    return text.splitlines()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment where `gossipcache` is the one under test."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "gossipcache"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m gossipcache "$@"\n')
    command.chmod(0o755)
    kept = {key: text for key, text in os.environ.items() if not key.startswith("GOSSIPCACHE_")}
    path = f"{command.parent}:{kept.get('PATH', '/usr/bin:/bin')}"
    return kept | {"PATH": path, "GOSSIPCACHE_FORMAT": "human", "XDG_DATA_HOME": str(tmp_path)}


def run(command: str, folder: Path, environment: dict[str, str]) -> list[str]:
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment, timeout=LIMIT_S, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.stdout}"
    return done.stdout.splitlines()


def test_the_demonstration_prints_what_the_readme_shows(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    (step,) = steps(blocks("console")[0])
    assert step.command == "make demo"
    planned = subprocess.run(
        ["make", "-n", "demo", "test", f"VENV={tmp_path}/venv"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    (demo,) = [line for line in planned if line.endswith("/gossipcache demo")]
    assert any(line.endswith("-m pytest") for line in planned)
    demo = demo.replace(f"{tmp_path}/venv/bin/", "")
    printed = run(f"{demo} --size 8MiB", tmp_path, environment)
    assert masked(printed) == masked(step.output)


def test_the_walk_through_several_machines(tmp_path: Path, environment: dict[str, str]) -> None:
    # Of this test alone: all of 127.0.0.0/8 is this machine, and a free port may be taken by then.
    network = ".".join(["127", *map(str, os.urandom(2))])
    (tmp_path / "weights.bin").write_bytes(os.urandom(9 * MIB))
    homes: dict[str, Path] = {}
    try:
        for step in steps(blocks("console")[1]):
            home = homes.setdefault(step.machine, tmp_path / step.machine)
            command = step.command.replace("10.0.0.", f"{network}.")
            here = {"GOSSIPCACHE_HOME": str(home), "GOSSIPCACHE_NAME": step.machine}
            if "key import" in command:
                (tmp_path / "cluster.key").write_bytes(
                    (tmp_path / "machine-1" / "cluster.key").read_bytes()
                )
                (tmp_path / "cluster.key").chmod(0o600)
            printed = run(command, tmp_path, environment | here)
            assert masked(printed) == masked(step.output), command
            if "export" in command:
                copied = (tmp_path / "copy.bin").read_bytes()
                assert copied == (tmp_path / "weights.bin").read_bytes()
    finally:
        for home in homes.values():
            run("gossipcache node stop", tmp_path, environment | {"GOSSIPCACHE_HOME": str(home)})


def test_the_python_example(tmp_path: Path, environment: dict[str, str]) -> None:
    (example,) = blocks("python")
    here = environment | {"GOSSIPCACHE_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", example],
            cwd=tmp_path, env=here, capture_output=True, text=True, timeout=LIMIT_S, check=True,
        )  # fmt: skip
        assert done.stdout == "8000000 bytes\nb'weights'\n"
        assert (tmp_path / "model.bin").stat().st_size == 8_000_000
    finally:
        run("gossipcache node stop", tmp_path, here)


def test_every_linked_file_is_there() -> None:
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
