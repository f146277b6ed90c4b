"""What can be set, from the environment and ``outlast.toml`` (the environment wins). Built once, passed down."""

from . import graph_files
from .fields import CONFIG_FILE, SettingsError
from .graphs import GraphOptions
from .loading import load, variables
from .settings import ISOLATED_QUEUE, Settings

__all__ = [
    "CONFIG_FILE",
    "ISOLATED_QUEUE",
    "GraphOptions",
    "Settings",
    "SettingsError",
    "graph_files",
    "load",
    "variables",
]
