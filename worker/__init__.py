"""How tasks run: processes, and nothing that knows about stock. `celery -A worker` finds the app in worker.celery."""
