"""The schema: orders with their items, and how many pizzas the oven still takes today.

Keys are random UUIDs. A counter would be one row that all transactions want to change, and all but one would conflict.
"""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal

from sqlalchemy import CheckConstraint, ForeignKey, Index, Numeric, Text, Uuid, func, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

NEW_ID = text("gen_random_uuid()")


class Base(DeclarativeBase):
    """All tables."""


class Order(Base):
    """What a customer wants."""

    __tablename__ = "orm_orders"
    __table_args__ = (
        Index("orm_orders_by_time", "created_at"),
        # Partial: only what still has to be baked.
        Index("orm_orders_open", "customer", postgresql_where=text("status = 'new'")),
    )

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True, server_default=NEW_ID)
    customer: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text, server_default="new")
    created_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    items: Mapped[list[Item]] = relationship(back_populates="order", order_by="Item.product", lazy="selectin")

    @property
    def total(self) -> Decimal:
        """What it costs."""
        return sum((item.quantity * item.price for item in self.items), Decimal(0))


class Item(Base):
    """A part of an order."""

    __tablename__ = "orm_items"

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True, server_default=NEW_ID)
    order_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("orm_orders.id", ondelete="CASCADE"), index=True)
    product: Mapped[str] = mapped_column(Text)
    quantity: Mapped[int]
    price: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    order: Mapped[Order] = relationship(back_populates="items")


class Stock(Base):
    """What is left of a product. Everybody who orders it changes the same row: here transactions conflict."""

    __tablename__ = "orm_stock"
    __table_args__ = (CheckConstraint("left_over >= 0", name="orm_stock_not_oversold"),)

    product: Mapped[str] = mapped_column(Text, primary_key=True)
    left_over: Mapped[int]
