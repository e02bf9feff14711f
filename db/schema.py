"""What every table shares: names of constraints by convention, text without length, time with a zone.

The convention lets a migration name a constraint without looking it up: pk_, uq_, ck_, fk_, ix_.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from sqlalchemy import BigInteger, DateTime, Identity, MetaData, Text, text
from sqlalchemy.orm import DeclarativeBase, mapped_column

STATEMENT_TIME = text("statement_timestamp()")
"""The database's clock: stable within a statement, so an index can be used with it, unlike clock_timestamp()."""

bigint_identity = Annotated[int, mapped_column(BigInteger, Identity(always=True), primary_key=True)]
created_at = Annotated[datetime, mapped_column(server_default=STATEMENT_TIME)]


class Base(DeclarativeBase):
    """The root of every mapped class."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own hook, read once when a class is mapped
        str: Text(),
        datetime: DateTime(timezone=True),
    }
