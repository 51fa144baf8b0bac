"""gossipcache doctor."""

from __future__ import annotations

from dataclasses import asdict

import click

from gossipcache.cli.context import Shared, pass_shared, shared_options


@click.command("doctor")
@shared_options
@pass_shared
def doctor_command(shared: Shared) -> int:
    """Check the whole path, from key and disk to members and a round trip; exit 1 on a failure."""
    from gossipcache.doctor import Finding, examine

    def line(finding: Finding) -> str:
        mark = "ok  " if finding.ok else "FAIL"
        hint = f" TRY: {finding.hint}." if finding.hint else ""
        return f"{mark} {finding.check}: {finding.detail}.{hint}"

    findings = list(examine(shared.home))
    ok = all(finding.ok for finding in findings)
    value = {"ok": ok, "checks": [asdict(finding) for finding in findings]}
    shared.show(value, lambda: map(line, findings))
    return 0 if ok else 1
