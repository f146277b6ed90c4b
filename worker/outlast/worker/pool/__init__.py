"""The Celery pool: what a doorbell does in this worker."""

from .pool import RunPool

__all__ = ["RunPool"]
