"""The Celery pool and its child processes. Nothing is imported here: children load this package, and no Celery."""
