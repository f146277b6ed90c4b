"""The command line: ``outlast --help``."""

from .main import app

__all__ = ["app"]
