"""An order and its items. Orders are written by many at once, so their keys are random rather than counted."""

import uuid

from django.db import models
from django.utils import timezone


class Order(models.Model):
    """What a customer wants."""

    class Status(models.TextChoices):
        """How far it has come."""

        NEW = "new"
        BAKED = "baked"
        DELIVERED = "delivered"

    order_id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    customer = models.TextField()
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.NEW)
    total = models.DecimalField(max_digits=10, decimal_places=2)
    created_at = models.DateTimeField(default=timezone.now, db_index=True)

    def __str__(self) -> str:
        return f"{self.customer}: {self.total}"


class Item(models.Model):
    """A line of an order."""

    item_id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    order = models.ForeignKey(Order, models.CASCADE, related_name="items")
    product = models.TextField()
    quantity = models.PositiveIntegerField()
    price = models.DecimalField(max_digits=10, decimal_places=2)

    class Meta:
        """A product stands once on an order."""

        constraints = [models.UniqueConstraint(fields=["order", "product"], name="one_line_a_product")]

    def __str__(self) -> str:
        return f"{self.quantity} x {self.product}"
