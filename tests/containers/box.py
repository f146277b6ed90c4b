"""What stands for a container: a mount namespace with a read-only root, a plain user, no capabilities, limits on files.

Where the system forbids namespaces, a box is only a process with the same environment, and says so.
"""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# Root has the right to mount; others get it in a user namespace of their own.
_MOUNTING = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]


@dataclass(frozen=True)
class Box:
    user: str
    """uid:gid, as the process sees itself."""
    tmpfs: Mapping[Path, str] = field(default_factory=dict[Path, str])
    """The only places that can be written, with their mount options."""
    files: int | None = None
    isolated: bool = True

    def command(self, command: Sequence[str]) -> list[str]:
        if not self.isolated:
            return [*self._limited(), *command]
        mounts = [f"mount -t tmpfs -o {options} tmpfs {shlex.quote(str(at))}" for at, options in self.tmpfs.items()]
        uid, _, gid = self.user.partition(":")
        entered = ["unshare", "--user", f"--map-user={uid}", f"--map-group={gid}", "--"]
        bare = ["setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--"]
        script = " && ".join(["mount -o remount,ro,bind /", *mounts, 'exec "$@"'])
        return [*self._limited(), *_MOUNTING, "--", "sh", "-c", script, "box", *entered, *bare, *command]

    def _limited(self) -> list[str]:
        if self.files is None:
            return []
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        files = self.files if most == resource.RLIM_INFINITY else min(self.files, most)
        return ["prlimit", f"--nofile={files}:{files}", "--"]


def can_isolate(folder: Path) -> bool:
    """Whether boxes work here: nothing but a tmpfs can be written in one, not even by root."""
    tmp = folder / "probe"
    tmp.mkdir()
    box = Box("10001:10001", {tmp: "size=1m,mode=1777"})
    script = f"touch {tmp}/x && ! touch {folder}/x && id -u"
    try:
        done = subprocess.run(box.command(["sh", "-c", script]), capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0 and done.stdout.strip() == "10001"
