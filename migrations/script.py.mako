"""${message[0].upper() + message[1:]}.

The old code is still running while this does: add before you use, stop using before you drop, fill in a backfill.
It runs in one transaction with lock_timeout 3 s; an index on a filled table is built CONCURRENTLY in an
op.get_context().autocommit_block(), after SET lock_timeout = 0, SET statement_timeout = 0 (its wait blocks nobody) and
dropping an invalid leftover of the same name; RESET both at its end.

Revision: ${up_revision}, after: ${down_revision | comma,n}, created: ${create_date}
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
