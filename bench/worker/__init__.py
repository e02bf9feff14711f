"""The price of Harbor's worker: what its base Task, its log and its imports add to Celery's own."""
