import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from stack.binaries import URL_VARIABLES
from tests.stack.processes import ROOT, eventually

TELL = "import json, os, sys; print(json.dumps(dict(os.environ)), flush=True); sys.exit(7)"
WAIT = "import signal, time; print('here', flush=True); time.sleep(600)"


@pytest.fixture
def environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in URL_VARIABLES}


def test_a_command_gets_the_urls_and_its_exit_code_is_kept(environ: dict[str, str]) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "stack", sys.executable, "-c", TELL],
        cwd=ROOT, env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert answer.returncode == 7
    assert set(URL_VARIABLES) <= set(json.loads(answer.stdout))


@pytest.mark.parametrize(
    ("command", "says"),
    [([], "usage: python -m stack COMMAND…"), (["no-such-program"], "stack: no-such-program: No such")],
)
def test_a_command_that_is_none_is_named(environ: dict[str, str], command: list[str], says: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "stack", *command], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )

    assert answer.returncode == 1
    assert answer.stderr.startswith(says)
    assert answer.stderr.count("\n") == 1


def test_sigterm_reaches_the_command(environ: dict[str, str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "stack", sys.executable, "-c", WAIT], cwd=ROOT, env=environ, stdout=subprocess.PIPE
    ) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == b"here\n"
        family = psutil.Process(command.pid).children(recursive=True)

        command.send_signal(signal.SIGTERM)

        assert command.wait() == 128 + signal.SIGTERM
        assert eventually(lambda: not any(member.is_running() for member in family))
