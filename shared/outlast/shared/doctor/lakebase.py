"""What is to be said of a Lakebase: which one the settings name, and whether its workspace gives us a login."""

from __future__ import annotations

from outlast.shared.domain.findings import Finding, error, ok, warning
from outlast.shared.lakebase import Lakebase, Target
from outlast.shared.lakebase.faults import LoginFault, LoginRefused
from outlast.shared.lakebase.login import Login
from outlast.shared.settings import Settings

from .wording import lasted

_SKEWED_SECONDS = 60.0
_WAYS = {
    "LAKEBASE_AUTOSCALING_ENDPOINT": "lakebase_autoscaling_endpoint",
    "LAKEBASE_AUTOSCALING_BRANCH": "lakebase_autoscaling_branch",
    "LAKEBASE_INSTANCE_NAME": "lakebase_instance_name",
}


async def look(lakebase: Lakebase, settings: Settings) -> list[Finding]:
    """Asks the workspace for a login, as every process does. Without one the only finding is an error."""
    try:
        login = await lakebase.logins.get()
    except LoginFault as fault:
        return [judge_fault(fault)]
    return [*judge_login(login, lakebase.target), *judge_ways(settings, lakebase.target)]


def judge_login(login: Login, target: Target) -> list[Finding]:
    seen = f"{target.variable} names {target}: it is at {login.host}, and {login.user} has a login for it"
    found = [ok("lakebase", f"{seen}, for {lasted(round(login.seconds))}.")]
    if abs(login.skew_seconds) > _SKEWED_SECONDS:
        way = "ahead of" if login.skew_seconds > 0 else "behind"
        skew = f"This machine's clock is {lasted(abs(login.skew_seconds))} or more {way} the workspace's"
        fix = "Set the clock: timedatectl set-ntp true; in a container it is the host's."
        found.append(warning("lakebase", f"{skew}: when logins expire is not known.", fix))
    return found


def judge_ways(settings: Settings, used: Target) -> list[Finding]:
    """Of several ways only one counts."""
    others = [name for name, field in _WAYS.items() if getattr(settings, field) and name not in used.variable]
    if not others:
        return []
    seen = f"{used.variable} wins over {' and '.join(others)}, which nobody looks at."
    return [warning("lakebase", seen, f"unset {' '.join(others)}")]


def judge_overruled(settings: Settings) -> list[Finding]:
    """A Lakebase is named, and a DATABASE_URL too."""
    named = [name for name, field in _WAYS.items() if getattr(settings, field)]
    if not named:
        return []
    seen = f"DATABASE_URL wins over {' and '.join(named)}: the Lakebase is not used."
    return [warning("lakebase", seen, "unset DATABASE_URL, where the Lakebase is meant.")]


def judge_fault(fault: LoginFault | LoginRefused) -> Finding:
    fix = fault.fix or "The workspace's status page says more: it is asked again until it answers."
    return error("lakebase", f"{fault.cause.rstrip('.')}.", fix if fix.endswith("?") else f"{fix.rstrip('.')}.")
