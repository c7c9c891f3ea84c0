"""Create an order with its items, get it by id, list orders by time.

Each write is a transaction that is replayed when it loses to a concurrent one, so nothing but SQL happens in it.
"""

import datetime as dt
import uuid
from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from django.db.models import QuerySet

from orders.models import Item, Order


class Line(NamedTuple):
    """What is wanted of one product."""

    product: str
    quantity: int
    price: Decimal


def create_order(customer: str, lines: Sequence[Line]) -> Order:
    """Store an order with all its items. To be called in a transaction."""
    order = Order.objects.create(
        customer=customer, total=sum((line.quantity * line.price for line in lines), Decimal(0))
    )
    Item.objects.bulk_create(Item(order=order, **line._asdict()) for line in lines)
    return order


def get_order(order_id: uuid.UUID) -> Order | None:
    """An order with its items, or None."""
    return Order.objects.prefetch_related("items").filter(pk=order_id).first()


def list_orders(since: dt.datetime, until: dt.datetime) -> QuerySet[Order]:
    """The orders created from ``since`` on and before ``until``, oldest first."""
    return Order.objects.filter(created_at__gte=since, created_at__lt=until).order_by("created_at")
