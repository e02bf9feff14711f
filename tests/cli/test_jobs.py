from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from cli import actor
from db import jobs
from db.session import transaction
from tests.cli.terminal import Terminal
from tests.db.sql import change
from tests.ledger import (
    buried,
    claimed,
    lease,
    make_type,
    operator_actions,
    put,
    run_out,
)

if TYPE_CHECKING:
    from uuid import UUID

    from tests.cli.conftest import Harbor


@pytest.fixture(autouse=True)
def _types(database: None) -> None:
    make_type()
    make_type("sample.pay", queue="bulk", reservation_id=["integer"], payment_ref=["string"])


def dead(error: str = "no such payment") -> UUID:
    return buried("sample.pay", 42, "pay-secret", error=error)


# ---- look ------------------------------------------------------------------------------------------------------------


def test_no_jobs_are_said_to_be_none(harbor: Harbor) -> None:
    assert harbor("jobs", "list").out == "No jobs.\n"
    assert harbor("jobs", "list", "--json").json() == []


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], 3),
        (["--state", "dead"], 1),
        (["--task", "sample.count"], 2),
        (["--queue", "bulk"], 1),
        (["--older-than", "10m"], 1),
        (["--newer-than", "10m", "--state", "ready"], 1),
        (["--older-than", "0s", "--newer-than", "36500d"], 3),
        (["--task", "sample.count", "--state", "dead"], 0),
    ],
)
def test_a_list_holds_what_was_asked_for(harbor: Harbor, options: list[str], found: int) -> None:
    dead()
    put()
    old = put()
    change("UPDATE jobs SET created_at = created_at - interval '11 min' WHERE task_id = :id", id=old)

    assert len(harbor("jobs", "list", *options, "--json").json()) == found


def test_a_page_says_how_to_get_the_next(harbor: Harbor) -> None:
    made = [str(put()) for _ in range(5)]

    first = harbor("jobs", "list", "--limit", 3)
    hint = first.out.rstrip().rsplit("\n", 1)[-1]
    second = harbor("jobs", "list", "--limit", 3, *shlex.split(hint.partition("with ")[2]))

    pages = [re.findall(r"^ *([0-9a-f-]{36}) ", page.out, re.MULTILINE) for page in (first, second)]
    assert pages[0] + pages[1] == sorted(made, reverse=True)
    assert "--after" not in second.out


def test_a_name_that_does_not_exist_is_refused_with_those_that_do(harbor: Harbor) -> None:
    for command in (("jobs", "list"), ("jobs", "retry", "--yes")):
        task, queue = harbor(*command, "--task", "nope"), harbor(*command, "--queue", "nope")

        assert (task.code, queue.code) == (1, 1)
        assert re.match(r"harbor: Task nope is unknown; there are .*sample\.count.*\. `.*db upgrade` ", task.err)
        assert queue.err == "harbor: Queue nope does not exist; there are bulk, default, expiry.\n"


def test_a_limit_is_named_as_it_is_typed(harbor: Harbor) -> None:
    answer = harbor("jobs", "list", "--limit", 0)

    assert answer.code == 2
    assert answer.err.endswith("'--limit': must be an integer from 1 to 1000, and was 0.\n")


def test_each_job_is_one_line_with_its_id_task_and_state_whole(harbor: Harbor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    task_id = dead("no such payment " * 100)
    put()

    piped = harbor("jobs", "list").out
    terminal = Terminal("jobs", "list")
    terminal.end()

    for text in (piped, terminal.text.replace("\r", "")):
        lines = [line for line in text.splitlines() if re.match(" *[0-9a-f]{8}-", line)]
        assert len(lines) == 2
        assert re.match(rf" *{task_id} +sample\.pay +bulk +dead +1 of 20 .* no such.*… *$", lines[1])
    assert "no such payment no such payment" in piped


def test_the_next_moment_is_named_by_what_it_is(harbor: Harbor) -> None:
    seen = []
    for make in (put, waits_for_a_worker, dead):
        task_id = make()
        seen.append(harbor("jobs", "show", task_id, "--json").json())

    assert [job["available_at"] is not None for job in seen] == [True, False, False]
    assert [job["sent_again_at"] is not None for job in seen] == [False, True, False]


def test_arguments_are_shown_only_to_who_asks_for_them(harbor: Harbor) -> None:
    task_id = dead()

    without = [harbor("jobs", "show", task_id), harbor("jobs", "show", task_id, "--json"), harbor("jobs", "list")]
    whole = harbor("jobs", "show", task_id, "--arguments")
    whole_json = harbor("jobs", "show", task_id, "--arguments", "--json").json()

    assert not [answer for answer in without if "pay-secret" in answer.out]
    assert "(42, …)" in without[0].out
    assert '[42, "pay-secret"]' in whole.out
    assert whole_json["args"] == [42, "pay-secret"]
    assert harbor("jobs", "show", task_id, "--json").json()["args"] is None


def test_a_job_is_shown_with_its_error_and_the_command_that_helps(harbor: Harbor) -> None:
    task_id = dead("no such payment\x1b[2J")

    text = harbor("jobs", "show", task_id).out
    told = harbor("jobs", "show", task_id, "--json").json()

    assert "\x1b" not in text
    assert re.search(r"1 +refused +20.* no such payment\\x1b\[2J", text)
    assert f"harbor jobs retry {task_id}`" in text
    assert (told["state"], told["can"], told["attempts"][0]["outcome"]) == ("dead", ["retry"], "refused")


def test_an_error_of_many_lines_is_shown_whole_once(harbor: Harbor) -> None:
    task_id = dead("no such payment\n  at line 1\x1b[2J\n  at line 2")

    text = harbor("jobs", "show", task_id).out

    assert text.count("no such payment") == 2
    assert "\n    at line 1\\x1b[2J\n    at line 2\n" in text


def waits_for_its_key() -> UUID:
    put(ordering_key="k")
    second = put(ordering_key="k")
    lease()
    return second


def waits_in_a_paused_queue() -> UUID:
    change("INSERT INTO queue_control (queue, paused) VALUES ('default', true)")
    return put()


def waits_for_the_limit() -> UUID:
    change("INSERT INTO queue_control (queue, max_in_flight) VALUES ('default', 1)")
    claimed()
    return put()


def waits_for_its_time() -> UUID:
    return put(delay=3_600)


def waits_for_a_relay() -> UUID:
    task_id = put()
    change("UPDATE jobs SET available_at = available_at - interval '1 min'")
    return task_id


def waits_for_a_worker() -> UUID:
    task_id = put()
    lease()
    return task_id


def waits_for_a_busy_worker() -> UUID:
    claimed()
    return waits_for_a_worker()


def has_snoozed() -> UUID:
    taken = claimed()
    with transaction() as session:
        jobs.snooze(session, taken, 3_600)
    return taken.task_id


def runs() -> UUID:
    return claimed().task_id


def is_lost() -> UUID:
    taken = claimed()
    run_out(taken)
    return taken.task_id


WHY = {
    waits_for_its_key: r"It waits for job .* which is published and has the same ordering key: `.*harbor jobs show",
    waits_in_a_paused_queue: r"Its queue is paused: `.*harbor queues resume default`",
    waits_for_the_limit: r"as many jobs in flight as it may, 1: `.*harbor queues limit default --max-in-flight 2`",
    waits_for_its_time: r"It is due in 60 min, at ",
    waits_for_a_relay: r"No relay has taken it, though it is due for 60(\.\d)? s: run `.*harbor relay`",
    waits_for_a_worker: r"sent once, .* has started it; .*\nNo job .* runs: `.*harbor worker --pool default` runs one",
    waits_for_a_busy_worker: r"\n1 job of queue default runs, since .* m?s: all workers may be busy\.\n`.*running`",
    has_snoozed: r"It put itself off until .*Z, in 60 min\.",
    runs: r"A worker runs it, since ",
    is_lost: r"Its worker has said nothing until its lease ran out",
}


@pytest.mark.parametrize("make", WHY, ids=lambda make: make.__name__)
def test_a_job_says_what_it_waits_for_and_what_can_be_done(harbor: Harbor, make: Any) -> None:
    task_id = make()

    text = harbor("jobs", "show", task_id).out

    assert [say.__name__ for say, pattern in WHY.items() if re.search(pattern, text)] == [make.__name__]
    assert f"harbor jobs cancel {task_id}`" in text


def test_the_commands_that_are_named_are_those_that_work(harbor: Harbor) -> None:
    for verb in ("retry", "bury", "cancel"):
        task_id = dead() if verb == "retry" else put()
        command = re.search(rf"`\S*harbor (jobs {verb} \S+)`", harbor("jobs", "show", task_id).out)
        assert command is not None
        assert harbor(*command[1].split()).code == 0


@pytest.mark.parametrize("command", ["show", "retry", "cancel", "bury"])
def test_an_unknown_id_is_an_error_and_a_wrong_one_of_usage(harbor: Harbor, command: str) -> None:
    unknown = uuid4()

    missing = harbor("jobs", command, unknown)
    wrong = harbor("jobs", command, "42")

    assert (missing.code, missing.err) == (1, f"harbor: Job {unknown} does not exist.\n")
    assert wrong.code == 2
    assert wrong.err.endswith("must be a valid UUID.\n")


# ---- one by one ------------------------------------------------------------------------------------------------------


def test_each_id_is_done_by_itself_and_written_down_with_the_actor(harbor: Harbor) -> None:
    good, bad = dead(), put()

    answer = harbor("jobs", "retry", good, bad, "--actor", "ada")

    assert (answer.code, answer.out) == (1, f"Job {good} is ready.\n")
    assert answer.err == f"harbor: Job {bad} is ready, and only one that is dead or cancelled can be retried.\n"
    assert operator_actions() == [("ada", "jobs.retry", str(good), {"was": "dead"})]


def test_a_running_job_is_asked_to_stop(harbor: Harbor) -> None:
    taken = claimed()

    assert harbor("jobs", "cancel", taken.task_id).out == f"Job {taken.task_id} is asked to stop.\n"


def test_who_does_it_comes_from_the_option_the_environment_sudo_or_the_login(
    harbor: Harbor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HARBOR_ACTOR", raising=False)
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    harbor("jobs", "bury", put())
    monkeypatch.setenv("SUDO_USER", "grace")
    harbor("jobs", "bury", put())
    monkeypatch.setattr(os, "geteuid", lambda: 2**31 - 7)  # A container's number without a name; SUDO_USER is forged.
    harbor("jobs", "bury", put())
    monkeypatch.setenv("HARBOR_ACTOR", "alan")
    harbor("jobs", "bury", put())
    harbor("jobs", "bury", put(), "--actor", "ada")
    refused = harbor("jobs", "bury", put(), "--actor", " ")

    assert [who for who, *_ in operator_actions()] == ["root", "grace", "uid 2147483641", "alan", "ada"]
    assert (refused.code, refused.err) == (1, "harbor: actor must not be empty, and was ' '.\n")
    assert actor.login() == "uid 2147483641"
