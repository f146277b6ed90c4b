"""What is to be said of this machine: facts in, findings out."""

from __future__ import annotations

from outlast.shared.domain.findings import Finding, error, ok, warning

CLOCK_SECONDS = 1.0
FILES_NEEDED = 4096


def judge_clock(ahead_seconds: float, *, whose: str, uncertain_seconds: float, lease_seconds: float) -> Finding:
    """``ahead_seconds``: of this machine's clock. ``uncertain_seconds``: half the round trip in which it was read."""
    off = max(0.0, abs(ahead_seconds) - uncertain_seconds)
    if off <= CLOCK_SECONDS:
        return ok("clocks", f"The clock of the {whose} and this machine's agree within {max(off, 0.001):.1g} s.")
    way = "ahead of" if ahead_seconds > 0 else "behind"
    seen = f"The clock of the {whose} is {off:,.1f} s {way} this machine's."
    fix = "Let both follow NTP: timedatectl set-ntp true"
    return (error if off > lease_seconds / 2 else warning)("clocks", seen, fix)


def judge_files(most: int | None) -> list[Finding]:
    """``most``: how many files a process may have open when it has raised its own limit; None: as many as it likes."""
    if most is None or most >= FILES_NEEDED:
        return [ok("files", f"A process may open {'any number of' if most is None else f'{most:,}'} files.")]
    seen = f"A process may open {most:,} files, and every stream of the API is one."
    return [warning("files", seen, "ulimit -Hn 65536 (systemd: LimitNOFILE=65536; docker: --ulimit nofile=65536)")]
