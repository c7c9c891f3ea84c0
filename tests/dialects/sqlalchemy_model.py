"""A model with everything that DSQL can hold: types, keys, indexes, identity, comments, a computed column."""

from __future__ import annotations

import enum
import uuid
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    CHAR,
    JSON,
    REAL,
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Double,
    Enum,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Interval,
    LargeBinary,
    Numeric,
    Sequence,
    SmallInteger,
    String,
    Table,
    Text,
    Time,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import DOMAIN, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    """The model."""


class Size(enum.Enum):
    """A native enum where there are any."""

    SMALL = "small"
    LARGE = "large"


Positive = DOMAIN("positive", BigInteger, check="VALUE > 0")

numbers = Sequence("numbers", start=10, metadata=Base.metadata)

tagging = Table(
    "tagging",
    Base.metadata,
    Column("pizza_id", ForeignKey("pizza.id", ondelete="CASCADE"), primary_key=True),
    Column("tag_id", BigInteger, ForeignKey("tag.id", deferrable=True, initially="DEFERRED"), primary_key=True),
)


class Tag(Base):
    """Has an autoincrement key, as every tutorial has it."""

    __tablename__ = "tag"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40), unique=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("tag.id"))


class Pizza(Base):
    """Every type, and every kind of index."""

    __tablename__ = "pizza"
    __table_args__ = (
        UniqueConstraint("name", "size", name="pizza_name_size", postgresql_nulls_not_distinct=True),
        CheckConstraint("price >= 0", name="pizza_price_not_negative"),
        Index("pizza_by_lower_name", func.lower(text("name"))),
        Index("pizza_live", "name", unique=True, postgresql_where=text("deleted_at IS NULL")),
        Index("pizza_by_price", "price", postgresql_include=["name"]),
        Index("pizza_by_code", "code", unique=True, postgresql_nulls_not_distinct=True),
        Index("pizza_by_sum", text("(small + big)")),
        {"comment": "What's on the menu"},
    )

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True, server_default=text("gen_random_uuid()"))
    name: Mapped[str] = mapped_column(Text, comment="As printed")
    size: Mapped[Size] = mapped_column(Enum(Size))
    code: Mapped[str | None] = mapped_column(CHAR(4))
    small: Mapped[int | None] = mapped_column(SmallInteger)
    medium: Mapped[int | None]
    big: Mapped[int | None] = mapped_column(BigInteger, index=True)
    single: Mapped[float | None] = mapped_column(REAL)
    double: Mapped[float | None] = mapped_column(Double)
    floating: Mapped[float | None] = mapped_column(Float)
    price: Mapped[Decimal] = mapped_column(Numeric(10, 2), server_default="8.50")
    double_price: Mapped[Decimal | None] = mapped_column(Numeric(12, 2), Computed("price * 2"))
    vegetarian: Mapped[bool] = mapped_column(server_default=text("false"))
    day: Mapped[date | None]
    moment: Mapped[time | None]
    moment_there: Mapped[time | None] = mapped_column(Time(timezone=True))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    deleted_at: Mapped[datetime | None]
    baking: Mapped[Any] = mapped_column(Interval, nullable=True)
    picture: Mapped[bytes | None] = mapped_column(LargeBinary)
    notes: Mapped[Any] = mapped_column(JSON, nullable=True)
    recipe: Mapped[Any] = mapped_column(JSONB, nullable=True)
    number: Mapped[int] = mapped_column(BigInteger, server_default=numbers.next_value())
    weight: Mapped[int | None] = mapped_column(Positive)

    tags: Mapped[list[Tag]] = relationship(secondary=tagging)


class Ledger(Base):
    """An identity column that isn't the key, and a composite key that stays what it is."""

    __tablename__ = "ledger"
    __table_args__ = (ForeignKeyConstraint(["shop", "day"], ["shift.shop", "shift.day"]),)

    entry: Mapped[int] = mapped_column(BigInteger, Identity(always=True, start=100, cache=1), primary_key=True)
    shop: Mapped[int]
    day: Mapped[date]


class Shift(Base):
    """A composite key of plain integers and dates."""

    __tablename__ = "shift"

    shop: Mapped[int] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    last_entry: Mapped[int | None] = mapped_column(BigInteger)


# Shift and Ledger refer to each other: this key is added once both tables are there.
Shift.__table__.append_constraint(  # type: ignore[attr-defined]
    ForeignKeyConstraint(["last_entry"], ["ledger.entry"], name="shift_last_entry", use_alter=True)
)
