"""The recipes of CONTRIBUTING work as written, each in under 20 lines."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from db.inventory import Product, Variant
from db.session import transaction
from tests.broker import own_broker
from tests.docs.blocks import Block, blocks_of
from tests.factories import make_variant
from tests.processes import ROOT, process, program, run, wait_until

if TYPE_CHECKING:
    from pathlib import Path

_BLOCKS = [block for block in blocks_of(ROOT / "CONTRIBUTING.md") if block.path]


def _follow(checkout: Path, *blocks: Block) -> None:
    """Do what the page says: a new file is written, settings are added to celeryconfig."""
    for block in blocks:
        assert block.path is not None
        file = checkout / block.path
        before = file.read_text("utf-8") if file.exists() else ""
        file.write_text(before + block.body, "utf-8")


def _blocks(path: str) -> list[Block]:
    return [block for block in _BLOCKS if block.path is not None and block.path.startswith(path)]


@pytest.mark.parametrize("block", _BLOCKS, ids=lambda block: block.path)
def test_a_recipe_has_under_20_lines(block: Block) -> None:
    assert len([line for line in block.body.splitlines() if line.strip()]) < 20


def test_the_task_of_the_page_runs_in_a_worker(checkout: Path, reader: dict[str, str], tmp_path: Path) -> None:
    _follow(checkout, *_blocks("tasks/"), _blocks("celeryconfig.py")[0])
    variant_id = make_variant(stock=1)
    with transaction() as session:
        product_id = session.get_one(Variant, variant_id).product_id

    def archived() -> bool:
        with transaction() as session:
            return session.get_one(Product, product_id).archived_at is not None

    with own_broker(reader) as broker:
        environ = broker.environ(reader)
        command = [program("celery"), "--workdir", str(checkout), "-A", "worker", "worker", "-c", "1"]
        send = f"from worker.celery import app; app.send_task('products.archive', args=[{product_id}])"
        with process(command, environ, tmp_path / "worker.log") as worker:
            sent = run([sys.executable, "-c", send], environ, cwd=checkout)
            wait_until(archived, 30, worker)

    assert sent.returncode == 0, sent.stderr


def test_the_periodic_job_of_the_page_names_a_task_that_exists(checkout: Path, reader: dict[str, str]) -> None:
    _follow(checkout, _blocks("celeryconfig.py")[1])
    check = (
        "from worker.celery import app; app.loader.import_default_modules()\n"
        "entry = app.conf.beat_schedule['inventory-reconcile-hourly']\n"
        "from worker.beat import declaration\n"
        "assert entry['task'] in app.tasks and declaration('it', entry).overlap == 'skip'"
    )

    ran = run([sys.executable, "-c", check], reader, cwd=checkout)

    assert ran.returncode == 0, ran.stderr


def test_the_migration_of_the_page_is_what_alembic_writes_and_goes_up_and_down(
    checkout: Path, reader: dict[str, str]
) -> None:
    products = checkout / "db/inventory/products.py"
    column = _blocks("db/inventory/products.py")[0].body
    place = "    archived_at: Mapped[datetime | None]\n"
    products.write_text(products.read_text("utf-8").replace(place, place + column), "utf-8")

    written = run([program("alembic"), "revision", "--autogenerate", "-m", "add supplier"], reader, cwd=checkout)
    revision = max(checkout.glob("migrations/versions/*_add_supplier.py"))
    results = [
        run([program("alembic"), *words], reader, cwd=checkout).returncode
        for words in (["upgrade", "head"], ["check"], ["downgrade", "-1"], ["upgrade", "head"])
    ]

    shown = [line.strip() for line in _blocks("migrations/")[0].body.splitlines() if "op." in line]
    assert written.returncode == 0, written.stderr
    assert all(line in revision.read_text("utf-8") for line in shown)
    assert results == [0, 0, 0, 0]
