"""Celery's settings: assignments only, each with the accident it prevents.

Names and numbers follow what was reproduced on Celery 5.7 and kombu 5.7 with Redis; tests/worker/test_celeryconfig.py
holds the inequalities between them.
"""

from kombu import Exchange, Queue

from db.settings import POOLS, settings

_settings = settings()
_pool = _settings.worker_pool

# ---- Transport: Redis only carries messages ------------------------------------------------------------------------

broker_url = _settings.broker_url.get_secret_value()

# With kombu's own transport one entry of a queue that is no message ends every worker that meets it. This one parks it.
broker_transport = f"worker.transport:{'TLSTransport' if broker_url.startswith('rediss:') else 'Transport'}"

broker_transport_options = {
    # Two applications on one server would read each other's queues.
    "global_keyprefix": "harbor:",
    # A message that is not acknowledged for so long goes to another worker. Below the hard time limit it would be run
    # twice at the same time; far above it, the work of a dead machine would wait. 600 + 25 + a margin.
    "visibility_timeout": 900,
    # By default a dead worker's messages are looked for every 100 s; with these every 5 s.
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    # Every worker sweeps with its own timeout, whatever the message's. Keys per pool keep a pool that may one day need
    # a longer timeout from having its running tasks redelivered by the others.
    "unacked_key": f"unacked:{_pool}",
    "unacked_index_key": f"unacked_index:{_pool}",
    "unacked_mutex_key": f"unacked_mutex:{_pool}",
    # A worker that dies while sweeping would keep the others from it for five minutes.
    "unacked_mutex_expire": 30,
    # Without timeouts a call on a dead socket never returns; with them and the check a silent peer is noticed in 21 s.
    # Never set retry_on_timeout here: it silently switches kombu's batch publishing off.
    "socket_timeout": 15,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 10,
    # On Redis 0 is the highest priority and the default: without steps and a default of our own nothing can overtake.
    "priority_steps": [0, 3, 6, 9],
    # The default order lets one full queue starve the others of a worker that consumes several.
    "queue_order_strategy": "round_robin",
    # A message that no queue takes would vanish without a word.
    "deadletter_queue": "undeliverable",
    # `CLIENT LIST` on the server says who is who.
    "client_name": f"harbor-{_pool}",
}
# By default a worker gives up after 100 attempts and stays away when the broker is back.
broker_connection_retry = True
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
# After a failover the server answers READONLY for a moment; kombu takes that for an error of the channel and stops.
broker_channel_error_retry = True
# By default a publisher waits without end for a connection of the pool.
broker_pool_acquire_timeout = 5

# ---- Queues: routed by the first word of a task's name, here and nowhere else --------------------------------------

task_queues = [Queue(name, Exchange(name), routing_key=name) for name in POOLS]
task_default_queue = "default"
task_routes = {
    # A long bulk job must never keep a hold from expiring.
    "reservations.*": {"queue": "expiry"},
    "inventory.*": {"queue": "bulk"},
    "backfills.*": {"queue": "bulk"},
}
# A misspelt queue would be made, filled and never read. This way publishing to it fails.
task_create_missing_queues = False
# Above priority 0, so that something can be more urgent than everything else.
task_default_priority = 6

# ---- Delivery: at least once; every task is safe to run again ------------------------------------------------------

# Acknowledged early, a task would be lost with its worker.
task_acks_late = True
# Putting the task of a killed child back without counting runs a task that kills its worker for ever (8 runs in 8 s).
task_reject_on_worker_lost = False
task_retry_on_worker_lost = True
# An error is not a reason to deliver the message again at once and without end.
task_acks_on_failure = True
task_acks_on_timeout = True
# Messages that wait inside a busy worker are late for everybody and run into the visibility timeout.
worker_disable_prefetch = True
worker_prefetch_multiplier = 1
# Delayed messages are held in the worker's memory; a flood of them ends it.
worker_eta_task_limit = 1000
# On a lost connection the broker hands the message to another worker 0.1 s later, while this one still runs it.
worker_cancel_long_running_tasks_on_connection_loss = True
# A task that hangs would keep its child for ever. The soft limit leaves it 30 s to roll back.
task_time_limit = 600
task_soft_time_limit = 570

# ---- Shutdown: `harbor worker` also maps SIGTERM to a soft shutdown ------------------------------------------------

# The default waits for running tasks without end, until the machine kills everything. Give the container 45 s.
worker_soft_shutdown_timeout = 25
# A retry that waits in an idle worker's memory would come back only after the visibility timeout. The price: an idle
# worker, too, takes 25 s to stop on SIGTERM; Ctrl-C is at once.
worker_enable_soft_shutdown_on_idle = True

# ---- Results: none; the effect of a task is in PostgreSQL ----------------------------------------------------------

task_ignore_result = True
task_store_errors_even_if_ignored = False

# ---- Processes -----------------------------------------------------------------------------------------------------

worker_concurrency = "auto"
# What a library leaks, a new child does not have. 400,000 KiB.
worker_max_tasks_per_child = 10_000
worker_max_memory_per_child = 400_000
# Celery would replace the handlers of the log that worker/logging.py sets up.
worker_hijack_root_logger = False

# ---- Safety --------------------------------------------------------------------------------------------------------

# A pickled message is a program that whoever can write to Redis runs in our workers.
accept_content = ["json"]
task_serializer = "json"
result_serializer = "json"
event_serializer = "json"
enable_utc = True
timezone = "UTC"

# ---- Events, for Flower --------------------------------------------------------------------------------------------

worker_send_task_events = True
# Sent one by one they are half of the work of a worker's main process.
worker_consumer = "worker.consumer:Consumer"
# One message more per publish, which nobody here reads.
task_send_sent_event = False

# ---- What runs -----------------------------------------------------------------------------------------------------

imports = ("tasks.inventory", "tasks.jobs", "tasks.reservations")

# ---- Beat ----------------------------------------------------------------------------------------------------------

# Celery's own scheduler keeps a file and publishes by itself: two Beats start everything twice, and what cannot be
# published is lost. With this one any number of Beats write each tick once, in one transaction with its job.
beat_scheduler = "worker.beat:LedgerScheduler"
# What an operator adds, pauses or resumes is seen after this many seconds, and what a dead Beat left is taken over.
beat_max_loop_interval = 1
# Beat answers `celery inspect ping` unless it is stuck.
beat_enable_remote_control = True
beat_remote_control_max_tick_age = 60
beat_schedule = {
    # `options` are those of `enqueue` and the schedule's policies. Sweeps may overlap, each taking what others leave:
    # one that is lost holds up nobody. `expires` bounds how many wait while no worker runs.
    "reservations-expire": {
        "task": "reservations.expire",
        "schedule": 5.0,
        "options": {"expires": 30, "priority": 3},
    },
    # With `overlap` these do not pile up behind a long one; `expires` bounds how long a lost one holds up the next.
    "inventory-reconcile": {
        "task": "inventory.reconcile",
        "schedule": 300.0,
        "options": {"overlap": "skip", "expires": 300},
    },
    # It is in no hurry, so it goes behind what waits in its queue.
    "jobs-prune": {
        "task": "jobs.prune",
        "schedule": 60.0,
        "options": {"overlap": "skip", "expires": 600, "priority": 9},
    },
}
