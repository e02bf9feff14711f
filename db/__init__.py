"""The truth and its copy: PostgreSQL, Redis, and the rules that keep stock from being oversold.

`db` knows nothing of Celery: every function here can be called from a worker, the command line or another service.
Functions take a `Session` and never commit; `db.session.transaction()` does, at the edge.
"""
