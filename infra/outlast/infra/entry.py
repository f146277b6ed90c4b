"""The program `outlast`. It is small, so that Ctrl-C ends it quietly while the commands are still being imported."""

from __future__ import annotations

import importlib

_INTERRUPTED = 130


def main() -> None:
    try:
        importlib.import_module("outlast.infra.cli").app()
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None
