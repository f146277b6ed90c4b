"""``python -m outlast.infra.cli``: the same as ``outlast``."""

from .main import app

app()
