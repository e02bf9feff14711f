"""Jobs for Harbor, put in by a service in its own transaction: the job is there when that commits, and only then.

enqueue, enqueue_many   statements that write jobs; a session or connection executes them, sync or async
job, cancel             statements that look at a job, and that stop one
tasks                   a typed function per task, made from Harbor's own declarations
refusals, InvalidJob    what is wrong with a job, by the name of its field
testing                 for the tests of a service, without workers

This package knows PostgreSQL's functions `harbor_…_v1` and nothing else of Harbor.
"""

from harbor_client import tasks
from harbor_client.refusal import InvalidJob, refusals
from harbor_client.statements import Enqueue, cancel, enqueue, enqueue_many, job

__all__ = ["Enqueue", "InvalidJob", "cancel", "enqueue", "enqueue_many", "job", "refusals", "tasks"]
