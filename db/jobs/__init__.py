"""Jobs: written in their caller's transaction, done exactly once in PostgreSQL.

enqueue, enqueue_many   write jobs
Snooze, Discard         what a task may answer besides being done
claim …                 run one: see db/jobs/claim.py
lease, sweep            publish what is due, and again what nobody started: see db/jobs/publish.py
status, cancel          how a job stands, and that it is not wanted any more
JobFilter …             what operators see and do: see db/jobs/read.py, stats.py, control.py, many.py and limits.py
"""

from db.jobs.answers import Discard, Snooze
from db.jobs.claim import Claim, Settled, bury, claim, give_back, note_failure, retry, snooze
from db.jobs.claim import cancel as cancel_claimed
from db.jobs.control import JobStatus, Verb, cancel, status
from db.jobs.enqueue import JobRequest, enqueue, enqueue_many
from db.jobs.filter import JobFilter
from db.jobs.job import ARROWS, ENDED, Job, JobAttempt, JobState
from db.jobs.kinds import DEFAULT_MAX_ATTEMPTS, JobType, Route, all_declared, declare, declared, keep
from db.jobs.publish import LEASE_LIMIT, SWEEPS, Message, Overdue, Swept, lease, overdue, sweep, sweep_one, uncount
from db.jobs.queue import OperatorAction, QueueControl

__all__ = [
    "ARROWS",
    "DEFAULT_MAX_ATTEMPTS",
    "ENDED",
    "LEASE_LIMIT",
    "SWEEPS",
    "Claim",
    "Discard",
    "Job",
    "JobAttempt",
    "JobFilter",
    "JobRequest",
    "JobState",
    "JobStatus",
    "JobType",
    "Message",
    "OperatorAction",
    "Overdue",
    "QueueControl",
    "Route",
    "Settled",
    "Snooze",
    "Swept",
    "Verb",
    "all_declared",
    "bury",
    "cancel",
    "cancel_claimed",
    "claim",
    "declare",
    "declared",
    "enqueue",
    "enqueue_many",
    "give_back",
    "keep",
    "lease",
    "note_failure",
    "overdue",
    "retry",
    "snooze",
    "status",
    "sweep",
    "sweep_one",
    "uncount",
]
