"""Why a job is where it is, and what can be done with it, each with the command that does it, ready to be typed."""

from typing import TYPE_CHECKING

from cli.filters import duration
from cli.output import shown

if TYPE_CHECKING:
    from db.jobs.read import JobDetails

_LATE_SECONDS = 10


def why(job: "JobDetails") -> list[str]:
    """Return what a job waits for, or how it ended; what is nearest to being done about it last."""
    told = {
        "ready": _why_ready,
        "published": _why_published,
        "running": _why_running,
        "dead": _why_dead,
    }.get(job.state)
    return told(job) if told else []


def _why_ready(job: "JobDetails") -> list[str]:
    told = []
    due_in_seconds = (job.available_at - job.now).total_seconds()
    if job.later:
        if _snoozed(job):
            told.append(f"It put itself off until {shown(job.available_at)}, in {duration(due_in_seconds)}.")
        else:
            again = "It failed before and is tried again" if job.attempt else "It is due"
            told.append(f"{again} in {duration(due_in_seconds)}, at {shown(job.available_at)}.")
    if job.head is not None:
        told.append(
            f"It waits for job {job.head.task_id}, which is {job.head.state} and has the same ordering key:"
            f" `harbor jobs show {job.head.task_id}`."
        )
    if job.limits.paused:
        told.append(f"Its queue is paused: `harbor queues resume {job.queue}` lets it go on.")
    most = job.limits.max_in_flight
    if most is not None and (job.in_flight or 0) >= most:
        told.append(
            f"Its queue has as many jobs in flight as it may, {most}:"
            f" `harbor queues limit {job.queue} --max-in-flight {most * 2}` allows more."
        )
    if job.limits.rate_per_second is not None:
        told.append(f"Its queue is limited to {job.limits.rate_per_second:g} a second: `harbor queues list`.")
    if not told and -due_in_seconds > _LATE_SECONDS:
        told.append(f"No relay has taken it, though it is due for {duration(-due_in_seconds)}: run `harbor relay`.")
    return told or ["It is due, and the next relay that looks takes it."]


def _snoozed(job: "JobDetails") -> bool:
    """Whether it waits since it ran: whatever else makes a job that has run wait is written down behind its start."""
    started = job.started_at
    return started is not None and job.publish_count == 0 and all(each.created_at < started for each in job.attempts)


def _why_published(job: "JobDetails") -> list[str]:
    since = (job.now - job.published_at).total_seconds() if job.published_at else None
    times = "once" if job.publish_count == 1 else f"{job.publish_count} times"
    sent = f"Its message was sent {times}, {duration(since)} ago, and no worker has started it"
    again = f"{sent}; it is sent again at {shown(job.available_at)}."
    if not job.running:
        return [again, f"No job of its queue runs: `harbor worker --pool {job.queue}` runs one."]
    oldest = duration((job.now - job.oldest_started_at).total_seconds() if job.oldest_started_at else None)
    busy = f"{job.running:,} jobs of queue {job.queue} run, the oldest since {oldest}"
    if job.running == 1:
        busy = f"1 job of queue {job.queue} runs, since {oldest}"
    busy += ": all workers may be busy."
    return [again, busy, f"`harbor jobs list --queue {job.queue} --state running` shows what keeps them so."]


def _why_running(job: "JobDetails") -> list[str]:
    if job.lost:
        return ["Its worker has said nothing until its lease ran out. A relay gives it to another: run `harbor relay`."]
    if job.cancel_requested:
        return ["It was asked to stop, and commits nothing any more; it ends when its worker notices."]
    since = (job.now - job.started_at).total_seconds() if job.started_at else None
    return [f"A worker runs it, since {duration(since)}, and extends its lease as long as it lives."]


def _why_dead(job: "JobDetails") -> list[str]:
    last = job.attempts[-1].outcome if job.attempts else ""
    reasons = {
        "refused": "Its task refused: trying again changes nothing until what it says is put right.",
        "failed": f"It has failed, the last of {job.max_attempts} attempts, too.",
        "exhausted": "Its attempts are used up.",
        "lost": "Its worker was lost, each time; it may be what ends them.",
        "buried": "An operator has buried it.",
    }
    return [reasons[last]] if last in reasons else []


def possible(job: "JobDetails") -> dict[str, str]:
    """Return what can be done with a job, each with the sentence that says how."""
    if job.state in {"dead", "cancelled"}:
        return {"retry": f"`harbor jobs retry {job.task_id}` lets it run again now, with all its attempts."}
    can = {}
    if job.state in {"ready", "published"}:
        can["cancel"] = f"`harbor jobs cancel {job.task_id}` ends it before it starts."
        can["bury"] = f"`harbor jobs bury {job.task_id}` puts it aside for 30 days."
    elif job.state == "running" and not job.cancel_requested:
        can["cancel"] = f"`harbor jobs cancel {job.task_id}` asks it to stop; nothing that it has not committed stays."
    return can
