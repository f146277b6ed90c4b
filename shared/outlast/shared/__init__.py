"""What the API and the worker must agree on. Knows neither HTTP routes nor Celery tasks."""
