"""Create jobs: the ledger, what controls it, and the schedules.

New tables, which the old code does not know. The trigger is on the new table `jobs` alone: it refuses every change of
state that is not in its list, whoever makes it, stamps the times that belong to a state, and lets the next job of an
ordering key go when one has ended or waits again.

Revision: 2f6b8e11c7a4, after: 5be27a91c3d4, created: 2026-11-21 12:31:35+00:00
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "2f6b8e11c7a4"
down_revision = "5be27a91c3d4"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job_types",
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("max_attempts", sa.SmallInteger(), nullable=False),
        sa.Column("parameters", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.text("statement_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("task", name=op.f("pk_job_types")),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("task_id", sa.Uuid(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("args", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("kwargs", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'ready'"), nullable=False),
        sa.Column(
            "available_at", sa.DateTime(timezone=True), server_default=sa.text("statement_timestamp()"), nullable=False
        ),
        sa.Column("attempt", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("max_attempts", sa.SmallInteger(), nullable=False),
        sa.Column("lease_token", sa.Uuid(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("dedupe_key", sa.Text(), nullable=True),
        sa.Column("ordering_key", sa.Text(), nullable=True),
        sa.Column("blocked", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("statement_timestamp()"), nullable=False
        ),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("publish_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'running') = (lease_token IS NOT NULL) AND (state = 'running') = (lease_until IS NOT NULL)",
            name=op.f("ck_jobs_leased_when_running"),
        ),
        sa.CheckConstraint(
            "(state IN ('done', 'dead', 'cancelled')) = (finished_at IS NOT NULL)",
            name=op.f("ck_jobs_finished_when_ended"),
        ),
        sa.CheckConstraint(
            "NOT blocked OR state = 'ready' AND ordering_key IS NOT NULL", name=op.f("ck_jobs_blocked_when_ready")
        ),
        sa.CheckConstraint(
            "jsonb_typeof(args) = 'array' AND jsonb_typeof(kwargs) = 'object'", name=op.f("ck_jobs_arguments")
        ),
        sa.CheckConstraint("state <> 'published' OR published_at IS NOT NULL", name=op.f("ck_jobs_published")),
        sa.CheckConstraint(
            "state IN ('ready', 'published', 'running', 'done', 'dead', 'cancelled')", name=op.f("ck_jobs_state")
        ),
        sa.CheckConstraint(
            "state NOT IN ('running', 'done') OR started_at IS NOT NULL AND attempt > 0", name=op.f("ck_jobs_started")
        ),
        sa.CheckConstraint("max_attempts > 0 AND attempt BETWEEN 0 AND max_attempts", name=op.f("ck_jobs_attempts")),
        sa.CheckConstraint("priority BETWEEN 0 AND 9", name=op.f("ck_jobs_priority")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        postgresql_with={"fillfactor": 80, "autovacuum_vacuum_scale_factor": 0.01, "autovacuum_vacuum_cost_delay": 0},
    )
    op.create_index(
        "ix_jobs_blocked", "jobs", ["ordering_key", "id"], unique=False, postgresql_where=sa.text("blocked")
    )
    op.create_index(
        "ix_jobs_ended",
        "jobs",
        ["state", "finished_at", "id"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index(
        "ix_jobs_ordering_key_ready",
        "jobs",
        ["ordering_key", "id"],
        unique=False,
        postgresql_where=sa.text("ordering_key IS NOT NULL AND state = 'ready'"),
    )
    op.create_index(
        "ix_jobs_published",
        "jobs",
        ["queue", "available_at"],
        unique=False,
        postgresql_where=sa.text("state = 'published'"),
    )
    op.create_index(
        "ix_jobs_ready",
        "jobs",
        ["queue", "priority", "available_at", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'ready' AND NOT blocked"),
    )
    op.create_index(
        "ix_jobs_running", "jobs", ["queue", "lease_until"], unique=False, postgresql_where=sa.text("state = 'running'")
    )
    op.create_index(
        "uq_jobs_dedupe_key",
        "jobs",
        ["dedupe_key"],
        unique=True,
        postgresql_where=sa.text(
            "dedupe_key IS NOT NULL AND NOT cancel_requested AND state IN ('ready', 'published', 'running')"
        ),
    )
    op.create_index(
        "uq_jobs_ordering_key_in_flight",
        "jobs",
        ["ordering_key"],
        unique=True,
        postgresql_where=sa.text("ordering_key IS NOT NULL AND state IN ('published', 'running')"),
    )
    op.create_index("uq_jobs_task_id", "jobs", ["task_id"], unique=True)
    op.create_table(
        "operator_actions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("statement_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operator_actions")),
    )
    op.create_index(op.f("ix_operator_actions_created_at"), "operator_actions", ["created_at"], unique=False)
    op.create_table(
        "queue_control",
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("paused", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("max_in_flight", sa.Integer(), nullable=True),
        sa.Column("rate_per_second", sa.Float(), nullable=True),
        sa.Column("tokens", sa.Float(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "refilled_at", sa.DateTime(timezone=True), server_default=sa.text("statement_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("max_in_flight > 0", name=op.f("ck_queue_control_max_in_flight")),
        sa.CheckConstraint("rate_per_second > 0", name=op.f("ck_queue_control_rate_per_second")),
        sa.PrimaryKeyConstraint("queue", name=op.f("pk_queue_control")),
    )
    op.create_table(
        "schedules",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("args", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("kwargs", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("options", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("every_seconds", sa.Float(), nullable=True),
        sa.Column("crontab", sa.Text(), nullable=True),
        sa.Column("timezone", sa.Text(), server_default=sa.text("'UTC'"), nullable=False),
        sa.Column("misfire_grace_seconds", sa.Float(), server_default=sa.text("600"), nullable=False),
        sa.Column("catch_up", sa.Text(), server_default=sa.text("'latest'"), nullable=False),
        sa.Column("overlap", sa.Text(), server_default=sa.text("'allow'"), nullable=False),
        sa.Column("paused", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("last_due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_task_id", sa.Uuid(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("statement_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("catch_up IN ('latest', 'all', 'skip')", name=op.f("ck_schedules_catch_up")),
        sa.CheckConstraint("overlap IN ('allow', 'skip')", name=op.f("ck_schedules_overlap")),
        sa.CheckConstraint("source IN ('code', 'operator')", name=op.f("ck_schedules_source")),
        sa.CheckConstraint("(every_seconds IS NULL) <> (crontab IS NULL)", name=op.f("ck_schedules_one_rule")),
        sa.CheckConstraint("every_seconds > 0", name=op.f("ck_schedules_every_seconds")),
        sa.CheckConstraint("misfire_grace_seconds > 0", name=op.f("ck_schedules_misfire_grace_seconds")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_schedules")),
    )
    op.create_table(
        "job_attempts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.SmallInteger(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("statement_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_attempts_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_attempts")),
    )
    op.create_index(op.f("ix_job_attempts_job_id_id"), "job_attempts", ["job_id", "id"], unique=False)
    op.create_table(
        "schedule_ticks",
        sa.Column("schedule", sa.Text(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("task_id", sa.Uuid(), nullable=True),
        sa.Column("skipped", sa.Text(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("statement_timestamp()"), nullable=False
        ),
        sa.CheckConstraint(
            "skipped IN ('misfire', 'superseded', 'overlap', 'paused')", name=op.f("ck_schedule_ticks_skipped")
        ),
        sa.CheckConstraint(
            "(task_id IS NULL) = (skipped IS NOT NULL)", name=op.f("ck_schedule_ticks_a_job_or_a_reason")
        ),
        sa.ForeignKeyConstraint(
            ["schedule"], ["schedules.name"], name=op.f("fk_schedule_ticks_schedule_schedules"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("schedule", "due_at", name=op.f("pk_schedule_ticks")),
    )
    op.create_index(op.f("ix_schedule_ticks_created_at"), "schedule_ticks", ["created_at"], unique=False)
    # Whoever changes a job may search other schemas, and find another table of that name there.
    schema = "public" if op.get_context().as_sql else op.get_bind().execute(sa.text("SELECT current_schema()")).scalar()
    op.execute(_MOVES.replace("%(jobs)s", f'"{schema}".jobs'))
    op.execute(_TRIGGER)


def downgrade() -> None:
    op.execute("DROP TRIGGER harbor_job_moves ON jobs")
    op.execute("DROP FUNCTION harbor_job_moves")
    op.drop_index(op.f("ix_schedule_ticks_created_at"), table_name="schedule_ticks")
    op.drop_table("schedule_ticks")
    op.drop_index(op.f("ix_job_attempts_job_id_id"), table_name="job_attempts")
    op.drop_table("job_attempts")
    op.drop_table("schedules")
    op.drop_table("queue_control")
    op.drop_index(op.f("ix_operator_actions_created_at"), table_name="operator_actions")
    op.drop_table("operator_actions")
    op.drop_index("uq_jobs_task_id", table_name="jobs")
    op.drop_index(
        "uq_jobs_ordering_key_in_flight",
        table_name="jobs",
        postgresql_where=sa.text("ordering_key IS NOT NULL AND state IN ('published', 'running')"),
    )
    op.drop_index(
        "uq_jobs_dedupe_key",
        table_name="jobs",
        postgresql_where=sa.text(
            "dedupe_key IS NOT NULL AND NOT cancel_requested AND state IN ('ready', 'published', 'running')"
        ),
    )
    op.drop_index("ix_jobs_running", table_name="jobs", postgresql_where=sa.text("state = 'running'"))
    op.drop_index("ix_jobs_ready", table_name="jobs", postgresql_where=sa.text("state = 'ready' AND NOT blocked"))
    op.drop_index("ix_jobs_published", table_name="jobs", postgresql_where=sa.text("state = 'published'"))
    op.drop_index(
        "ix_jobs_ordering_key_ready",
        table_name="jobs",
        postgresql_where=sa.text("ordering_key IS NOT NULL AND state = 'ready'"),
    )
    op.drop_index("ix_jobs_blocked", table_name="jobs", postgresql_where=sa.text("blocked"))
    op.drop_index("ix_jobs_ended", table_name="jobs", postgresql_where=sa.text("finished_at IS NOT NULL"))
    op.drop_table("jobs")
    op.drop_table("job_types")


# The row is locked before a trigger runs, and each statement in it sees what was committed until then. So of a relay
# that blocks a row and the end of the job that it waits for, the later one sees what the earlier one did.
_MOVES: Final = """
CREATE FUNCTION harbor_job_moves() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.state || ' ' || NEW.state <> ALL (ARRAY[
       'ready published', 'ready dead', 'ready cancelled',
       'published ready', 'published running', 'published dead', 'published cancelled',
       'running ready', 'running done', 'running dead', 'running cancelled',
       'dead ready', 'cancelled ready'])
  THEN
    RAISE EXCEPTION USING ERRCODE = 'HB011', MESSAGE = format('job %s cannot go from %s to %s', OLD.task_id, OLD.state,
      NEW.state);
  END IF;
  IF NEW.state = 'published' THEN
    NEW.published_at := statement_timestamp();
    NEW.publish_count := OLD.publish_count + 1;
  ELSIF NEW.state = 'running' THEN
    NEW.started_at := statement_timestamp();
    NEW.publish_count := 0;
  ELSE
    NEW.lease_token := NULL;
    NEW.lease_until := NULL;
  END IF;
  IF NEW.state <> 'ready' THEN
    NEW.blocked := false;
  END IF;
  IF NEW.state IN ('done', 'dead', 'cancelled') THEN
    NEW.finished_at := statement_timestamp();
  ELSE
    NEW.finished_at := NULL;
  END IF;
  -- Not in flight (any more): it is the turn of another one of its key, or at least time for a relay to look again.
  IF NEW.ordering_key IS NOT NULL AND NEW.state NOT IN ('published', 'running') THEN
    -- It waits for nobody, or whoever keeps that row locked would keep this one from ending. The relays' sweep looks
    -- after what is passed over here.
    UPDATE %(jobs)s SET blocked = false
     WHERE id = (
       SELECT id FROM %(jobs)s
        WHERE blocked AND id = (
          SELECT min(id) FROM %(jobs)s WHERE ordering_key = NEW.ordering_key AND state = 'ready' AND id <> NEW.id)
          FOR NO KEY UPDATE SKIP LOCKED);
  END IF;
  RETURN NEW;
END
$$"""

_TRIGGER: Final = """
CREATE TRIGGER harbor_job_moves BEFORE UPDATE OF state ON jobs
FOR EACH ROW WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION harbor_job_moves()"""
