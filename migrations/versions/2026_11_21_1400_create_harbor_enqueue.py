"""Create what enqueues: harbor_enqueue_v1, harbor_enqueue_many_v1, harbor_job_v1, harbor_cancel_v1 and their role.

They are the only way in, for Python as for psql, so that a wrong job is refused in the same words everywhere. A refusal
has SQLSTATE 22X10 and names the field as its COLUMN; it never repeats a value, because servers log what they refuse.

They run with their owner's rights: `harbor_enqueuer` may execute them, and needs no right on any table. The name carries
a version: a changed function gets a new name, so that old callers keep working.

Revision: 7c20e5a9d3b1, after: 2f6b8e11c7a4, created: 2026-11-21 14:00:00+00:00
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "7c20e5a9d3b1"
down_revision = "2f6b8e11c7a4"
branch_labels = None
depends_on = None

_PUBLIC: Final = (
    "harbor_enqueue_v1(text, jsonb, jsonb, jsonb)",
    "harbor_enqueue_many_v1(jsonb)",
    "harbor_job_v1(uuid)",
    "harbor_cancel_v1(uuid)",
)
_PRIVATE: Final = (
    "harbor_insert_unless_there(jsonb)",
    "harbor_insert_jobs(jsonb)",
    "harbor_check_job(jsonb, text)",
    "harbor_check_job_options(text, text, jsonb)",
    "harbor_job_seconds(text, text, text, jsonb)",
    "harbor_check_parameters(text, text, jsonb, jsonb, jsonb)",
    "harbor_lock_job_keys(jsonb)",
    "harbor_refuse_job(text, text, text, text)",
    "harbor_uuid7()",
)


def upgrade() -> None:
    # Only the owner's schema is searched, whatever the caller's search_path says.
    schema = "public" if op.get_context().as_sql else op.get_bind().execute(sa.text("SELECT current_schema()")).scalar()
    for statement in (
        *(_REFUSE, _UUID7, _SECONDS, _PARAMETERS, _OPTIONS, _CHECK, _LOCK_KEYS, _INSERT, _INSERT_ONE),
        *(_ENQUEUE, _ENQUEUE_MANY, _JOB, _CANCEL),
    ):
        op.execute(sa.text(statement.replace("%(schema)s", f'"{schema}"').replace(":", r"\:")))
    for function in (*_PUBLIC, *_PRIVATE):
        op.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")
    op.execute(sa.text(_ROLE))
    for function in _PUBLIC:
        op.execute(sa.text(_GRANT.replace("%(function)s", function)))


def downgrade() -> None:
    # The role belongs to all databases of the server, and may be somebody's member; it stays.
    for function in (*_PUBLIC, *_PRIVATE):
        op.execute(f"DROP FUNCTION {function}")


_REFUSE: Final = """
CREATE FUNCTION harbor_refuse_job(p_where text, p_task text, p_field text, p_problem text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  -- A caller chose these names, and a name may be as long as its caller likes, or empty.
  v_task CONSTANT text := left(p_task, 80);
  v_field CONSTANT text := coalesce(nullif(left(p_field, 80), ''), '""');
BEGIN
  RAISE EXCEPTION USING
    ERRCODE = '22X10',
    MESSAGE = format('%sjob %s: %s %s', p_where, v_task, v_field, p_problem),
    COLUMN = v_field,
    TABLE = v_task,
    DETAIL = p_problem;
END
$$"""

# RFC 9562: 48 bits of milliseconds, the version, and random bits. PostgreSQL has uuidv7() from 18 on.
_UUID7: Final = """
CREATE FUNCTION harbor_uuid7() RETURNS uuid LANGUAGE sql VOLATILE AS $$
  SELECT encode(set_bit(set_bit(overlay(
           uuid_send(gen_random_uuid())
           PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6
         ), 52, 1), 53, 1), 'hex')::uuid
$$"""

_SECONDS: Final = """
CREATE FUNCTION harbor_job_seconds(p_where text, p_task text, p_field text, p_options jsonb)
RETURNS interval LANGUAGE plpgsql AS $$
DECLARE
  v_seconds numeric;
BEGIN
  IF jsonb_typeof(p_options->p_field) = 'null' OR NOT p_options ? p_field THEN
    RETURN NULL;
  END IF;
  IF jsonb_typeof(p_options->p_field) <> 'number' THEN
    PERFORM harbor_refuse_job(p_where, p_task, p_field, 'must be a number of seconds');
  END IF;
  v_seconds := (p_options->>p_field)::numeric;
  IF v_seconds < 0 THEN
    PERFORM harbor_refuse_job(p_where, p_task, p_field, 'is negative');
  ELSIF v_seconds > 31536000 THEN
    PERFORM harbor_refuse_job(p_where, p_task, p_field, 'is more than a year');
  END IF;
  RETURN make_interval(secs => v_seconds::float8);
END
$$"""

_PARAMETERS: Final = """
CREATE FUNCTION harbor_check_parameters(p_where text, p_task text, p_parameters jsonb, p_args jsonb, p_kwargs jsonb)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  v_given CONSTANT int := jsonb_array_length(p_args);
  v_parameter jsonb;
  v_name text;
  v_value jsonb;
  v_type text;
  v_next int := 0;
  v_named int := 0;
BEGIN
  FOR v_parameter IN SELECT value FROM jsonb_array_elements(p_parameters) LOOP
    v_name := v_parameter->>'name';
    IF v_next < v_given AND v_parameter->>'kind' = 'positional' THEN
      v_value := p_args->v_next;
      v_next := v_next + 1;
      IF p_kwargs ? v_name THEN
        PERFORM harbor_refuse_job(p_where, p_task, v_name, 'is given twice, by place and by name');
      END IF;
    ELSIF p_kwargs ? v_name THEN
      v_value := p_kwargs->v_name;
      v_named := v_named + 1;
    ELSIF (v_parameter->'required')::boolean THEN
      PERFORM harbor_refuse_job(p_where, p_task, v_name, 'is missing');
    ELSE
      CONTINUE;
    END IF;
    v_type := jsonb_typeof(v_value);
    IF NOT (v_parameter->'types' ? v_type
            OR v_type = 'number' AND v_parameter->'types' ? 'integer' AND scale(v_value::numeric) = 0) THEN
      PERFORM harbor_refuse_job(p_where, p_task, v_name, format('must be of type %s, and was of type %s',
        (SELECT string_agg(t, ' or ') FROM jsonb_array_elements_text(v_parameter->'types') AS t), v_type));
    END IF;
  END LOOP;
  IF v_next < v_given THEN
    PERFORM harbor_refuse_job(p_where, p_task, 'args', format('has %s values, and the task takes %s', v_given, v_next));
  END IF;
  IF p_kwargs <> '{}' AND v_named < (SELECT count(*) FROM jsonb_object_keys(p_kwargs)) THEN
    SELECT min(key) INTO v_name FROM jsonb_object_keys(p_kwargs) AS key
     WHERE key NOT IN (SELECT p->>'name' FROM jsonb_array_elements(p_parameters) AS p);
    PERFORM harbor_refuse_job(p_where, p_task, v_name, 'is no parameter of the task');
  END IF;
END
$$"""

_CHECK: Final = """
CREATE FUNCTION harbor_check_job(p_job jsonb, p_where text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  v_task CONSTANT text := coalesce(p_job->>'task', '');
  v_args CONSTANT jsonb := coalesce(nullif(p_job->'args', 'null'), '[]');
  v_kwargs CONSTANT jsonb := coalesce(nullif(p_job->'kwargs', 'null'), '{}');
  v_options CONSTANT jsonb := coalesce(nullif(p_job->'options', 'null'), '{}');
  v_bytes CONSTANT int := octet_length(v_args::text) + octet_length(v_kwargs::text);
  v_parameters jsonb;
BEGIN
  IF jsonb_typeof(p_job->'task') IS DISTINCT FROM 'string' OR v_task = '' THEN
    PERFORM harbor_refuse_job(p_where, '?', 'task', 'must be the name of a task');
  END IF;
  SELECT parameters INTO v_parameters FROM job_types WHERE task = v_task;
  IF NOT FOUND THEN
    PERFORM harbor_refuse_job(p_where, v_task, 'task', 'is unknown');
  ELSIF jsonb_typeof(v_args) <> 'array' THEN
    PERFORM harbor_refuse_job(p_where, v_task, 'args', 'must be a list');
  ELSIF jsonb_typeof(v_kwargs) <> 'object' THEN
    PERFORM harbor_refuse_job(p_where, v_task, 'kwargs', 'must be an object');
  ELSIF v_bytes > 65536 THEN
    PERFORM harbor_refuse_job(p_where, v_task, 'args', 'and kwargs are more than 64 KB together');
  -- What Python's JSON cannot read would be published for ever: no worker gets as far as claiming it.
  ELSIF v_bytes > 200 AND jsonb_path_exists(jsonb_build_array(v_args, v_kwargs), 'strict $.**{101}') THEN
    PERFORM harbor_refuse_job(p_where, v_task, 'args', 'and kwargs are nested more than 100 deep');
  ELSIF v_bytes > 4300 AND jsonb_path_exists(jsonb_build_array(v_args, v_kwargs),
                                             'strict $.** ? (@ >= 1e4300 || @ <= -1e4300)') THEN
    PERFORM harbor_refuse_job(p_where, v_task, 'args', 'and kwargs hold a number of more than 4300 digits');
  ELSIF jsonb_typeof(v_options) <> 'object' THEN
    PERFORM harbor_refuse_job(p_where, v_task, 'options', 'must be an object');
  END IF;
  PERFORM harbor_check_parameters(p_where, v_task, v_parameters, v_args, v_kwargs);
  IF v_options <> '{}' THEN
    PERFORM harbor_check_job_options(p_where, v_task, v_options);
  END IF;
END
$$"""

_OPTIONS: Final = """
CREATE FUNCTION harbor_check_job_options(p_where text, p_task text, p_options jsonb)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  v_key text;
  v_value jsonb;
  v_available_at timestamptz := statement_timestamp();
BEGIN
  FOR v_key, v_value IN SELECT key, value FROM jsonb_each(p_options) WHERE jsonb_typeof(value) <> 'null' LOOP
    IF v_key NOT IN ('delay', 'at', 'priority', 'dedupe_key', 'ordering_key', 'max_attempts', 'expires') THEN
      PERFORM harbor_refuse_job(p_where, p_task, v_key, 'is no option of a job');
    ELSIF v_key IN ('dedupe_key', 'ordering_key')
          AND (jsonb_typeof(v_value) <> 'string' OR length(p_options->>v_key) NOT BETWEEN 1 AND 255) THEN
      PERFORM harbor_refuse_job(p_where, p_task, v_key, 'must be a text of 1 to 255 characters');
    ELSIF v_key IN ('priority', 'max_attempts')
          AND (jsonb_typeof(v_value) <> 'number' OR scale(v_value::numeric) > 0) THEN
      PERFORM harbor_refuse_job(p_where, p_task, v_key, 'must be an integer');
    ELSIF v_key = 'priority' AND v_value::numeric NOT BETWEEN 0 AND 9 THEN
      PERFORM harbor_refuse_job(p_where, p_task, v_key, 'must be from 0, the first, to 9');
    ELSIF v_key = 'max_attempts' AND v_value::numeric NOT BETWEEN 1 AND 1000 THEN
      PERFORM harbor_refuse_job(p_where, p_task, v_key, 'must be from 1 to 1000');
    ELSIF v_key = 'at' THEN
      IF jsonb_typeof(v_value) <> 'string' OR p_options->>'at' !~ '^\\d{4}-\\d\\d-\\d\\d[T ]\\d\\d:\\d\\d' THEN
        PERFORM harbor_refuse_job(p_where, p_task, 'at', 'must be a time in ISO 8601, with its offset from UTC');
      ELSIF p_options->>'at' !~ '\\d\\s*(Z|[+-]\\d\\d(:?\\d\\d(:?\\d\\d)?)?)$' THEN
        PERFORM harbor_refuse_job(p_where, p_task, 'at', 'is naive: it lacks its offset from UTC');
      ELSIF jsonb_typeof(p_options->'delay') <> 'null' THEN
        PERFORM harbor_refuse_job(p_where, p_task, 'at', 'and delay exclude each other');
      END IF;
      BEGIN
        v_available_at := (p_options->>'at')::timestamptz;
      EXCEPTION WHEN data_exception THEN
        PERFORM harbor_refuse_job(p_where, p_task, 'at', 'is no time');
      END;
      IF v_available_at > statement_timestamp() + interval '31536000 s' THEN
        PERFORM harbor_refuse_job(p_where, p_task, 'at', 'is more than a year ahead');
      END IF;
    END IF;
  END LOOP;
  v_available_at := v_available_at + coalesce(harbor_job_seconds(p_where, p_task, 'delay', p_options), interval '0');
  IF statement_timestamp() + harbor_job_seconds(p_where, p_task, 'expires', p_options) <= v_available_at THEN
    PERFORM harbor_refuse_job(p_where, p_task, 'expires', 'is not after the moment at which the job is due');
  END IF;
END
$$"""

# The only INSERT, for jobs that have been checked. As one statement a thousand rows take a ninth of the time that one
# after the other takes (measured). A row whose dedupe_key is taken is left out.
_INSERT: Final = """
CREATE FUNCTION harbor_insert_jobs(p_jobs jsonb)
RETURNS SETOF uuid LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  INSERT INTO jobs (task_id, task, queue, priority, args, kwargs, available_at, max_attempts, expires_at,
                    dedupe_key, ordering_key)
  SELECT harbor_uuid7(), t.task, t.queue,
         coalesce((j.job #>> '{options,priority}')::smallint, t.priority),
         coalesce(nullif(j.job->'args', 'null'), '[]'),
         coalesce(nullif(j.job->'kwargs', 'null'), '{}'),
         coalesce((j.job #>> '{options,at}')::timestamptz, statement_timestamp()
                  + make_interval(secs => coalesce((j.job #>> '{options,delay}')::float8, 0))),
         coalesce((j.job #>> '{options,max_attempts}')::smallint, t.max_attempts),
         statement_timestamp() + make_interval(secs => (j.job #>> '{options,expires}')::float8),
         j.job #>> '{options,dedupe_key}', j.job #>> '{options,ordering_key}'
    FROM jsonb_array_elements(p_jobs) WITH ORDINALITY AS j(job, place)
    JOIN job_types t ON t.task = j.job->>'task'
   ORDER BY j.place
  ON CONFLICT (dedupe_key)
    WHERE dedupe_key IS NOT NULL AND NOT cancel_requested AND state IN ('ready', 'published', 'running') DO NOTHING
  RETURNING task_id;
END
$$"""

_INSERT_ONE: Final = """
CREATE FUNCTION harbor_insert_unless_there(p_job jsonb)
RETURNS uuid LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  v_id uuid;
BEGIN
  LOOP
    SELECT inserted INTO v_id FROM harbor_insert_jobs(jsonb_build_array(p_job)) AS inserted;
    EXIT WHEN FOUND;
    -- One that is too late to be started will not run for anybody, though no worker has said so yet.
    UPDATE jobs SET state = 'cancelled'
     WHERE dedupe_key = p_job #>> '{options,dedupe_key}' AND NOT cancel_requested
       AND state IN ('ready', 'published') AND expires_at <= statement_timestamp();
    CONTINUE WHEN FOUND;
    -- Whoever else enqueued it has committed, or the INSERT would still wait. It may have ended since.
    SELECT task_id INTO v_id FROM jobs
     WHERE dedupe_key = p_job #>> '{options,dedupe_key}' AND NOT cancel_requested
       AND state IN ('ready', 'published', 'running');
    EXIT WHEN FOUND;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
      RAISE EXCEPTION USING ERRCODE = 'serialization_failure',
        MESSAGE = 'the job with this dedupe_key was enqueued after this transaction began; try again';
    END IF;
  END LOOP;
  RETURN v_id;
END
$$"""

# Two batches that come upon the same keys, each in its own order, would wait for each other. The locks are few, because
# PostgreSQL has room for some thousands, shared by all its sessions: a batch of 10,000 keys would take the place of
# everybody's. Two keys that share a lock wait for each other, which costs time and nothing else.
_LOCK_KEYS: Final = """
CREATE FUNCTION harbor_lock_job_keys(p_jobs jsonb)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  v_lock int;
BEGIN
  FOR v_lock IN
    SELECT DISTINCT (hashtextextended(key, 0) & 1023)::int
      FROM jsonb_array_elements(p_jobs) AS jobs(job),
           LATERAL (VALUES (job #>> '{options,ordering_key}'), (job #>> '{options,dedupe_key}')) AS keys(key)
     WHERE key IS NOT NULL
     ORDER BY 1
  LOOP
    PERFORM pg_advisory_xact_lock(1212240450, v_lock);
  END LOOP;
END
$$"""

_ENQUEUE: Final = """
CREATE FUNCTION harbor_enqueue_v1(
  task text, args jsonb DEFAULT '[]', kwargs jsonb DEFAULT '{}', options jsonb DEFAULT '{}')
RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER
SET search_path = %(schema)s, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  v_job CONSTANT jsonb := jsonb_build_object('task', task, 'args', args, 'kwargs', kwargs, 'options', options);
BEGIN
  PERFORM harbor_check_job(v_job, '');
  IF options ? 'ordering_key' THEN
    PERFORM harbor_lock_job_keys(jsonb_build_array(v_job));
  END IF;
  RETURN harbor_insert_unless_there(v_job);
END
$$"""

_ENQUEUE_MANY: Final = """
CREATE FUNCTION harbor_enqueue_many_v1(jobs jsonb)
RETURNS SETOF uuid LANGUAGE plpgsql SECURITY DEFINER
SET search_path = %(schema)s, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  v_job jsonb;
  v_place int := 0;
  v_key text;
  v_deduped boolean := false;
  v_keyed boolean := false;
BEGIN
  IF jsonb_typeof(jobs) IS DISTINCT FROM 'array' THEN
    PERFORM harbor_refuse_job('', '?', 'jobs', 'must be a list of objects');
  ELSIF jsonb_array_length(jobs) > 10000 THEN
    PERFORM harbor_refuse_job('', '?', 'jobs', 'are more than 10000 at once');
  END IF;
  FOR v_job IN SELECT value FROM jsonb_array_elements(jobs) LOOP
    IF jsonb_typeof(v_job) <> 'object' THEN
      PERFORM harbor_refuse_job(format('jobs[%s]: ', v_place), '?', 'jobs', 'must be a list of objects');
    ELSIF v_job - '{task,args,kwargs,options}'::text[] <> '{}' THEN
      SELECT min(key) INTO v_key FROM jsonb_object_keys(v_job - '{task,args,kwargs,options}'::text[]) AS key;
      PERFORM harbor_refuse_job(format('jobs[%s]: ', v_place), coalesce(v_job->>'task', '?'), v_key,
        'is no part of a job');
    END IF;
    PERFORM harbor_check_job(v_job, format('jobs[%s]: ', v_place));
    v_deduped := v_deduped OR v_job #>> '{options,dedupe_key}' IS NOT NULL;
    v_keyed := v_keyed OR v_deduped OR v_job #>> '{options,ordering_key}' IS NOT NULL;
    v_place := v_place + 1;
  END LOOP;
  IF v_keyed THEN
    PERFORM harbor_lock_job_keys(jobs);
  END IF;
  IF v_deduped THEN
    RETURN QUERY SELECT harbor_insert_unless_there(value) FROM jsonb_array_elements(jobs);
  ELSE
    RETURN QUERY SELECT * FROM harbor_insert_jobs(jobs);
  END IF;
END
$$"""

_JOB: Final = """
CREATE FUNCTION harbor_job_v1(task_id uuid)
RETURNS TABLE (task text, queue text, state text, attempt int, max_attempts int, cancel_requested boolean, error text,
               available_at timestamptz, created_at timestamptz, started_at timestamptz, finished_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = %(schema)s, pg_temp AS $$
  SELECT j.task, j.queue, j.state, j.attempt, j.max_attempts, j.cancel_requested,
         (SELECT a.error FROM job_attempts a WHERE a.job_id = j.id ORDER BY a.id DESC LIMIT 1),
         j.available_at, j.created_at, j.started_at, j.finished_at
    FROM jobs j
   WHERE j.task_id = $1
$$"""

# A statement that waits for the row's lock reads its newest version, so a job that starts meanwhile is asked to stop.
_CANCEL: Final = """
CREATE FUNCTION harbor_cancel_v1(task_id uuid)
RETURNS text LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = %(schema)s, pg_temp AS $$
  UPDATE jobs j
     SET cancel_requested = j.cancel_requested OR j.state IN ('ready', 'published', 'running'),
         state = CASE WHEN j.state IN ('ready', 'published') THEN 'cancelled' ELSE j.state END
   WHERE j.task_id = $1
  RETURNING j.state
$$"""

_ROLE: Final = """
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'harbor_enqueuer') THEN
    CREATE ROLE harbor_enqueuer NOLOGIN;
  END IF;
EXCEPTION
  -- Another database of this server is being migrated at this moment.
  WHEN duplicate_object OR unique_violation THEN NULL;
  WHEN insufficient_privilege THEN
    RAISE WARNING 'the role harbor_enqueuer was not made: % may not make roles; docs/operations.md has the statements',
      current_user;
END
$$"""

_GRANT: Final = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'harbor_enqueuer') THEN
    GRANT EXECUTE ON FUNCTION %(function)s TO harbor_enqueuer;
  END IF;
END
$$"""
