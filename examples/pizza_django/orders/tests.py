"""``manage.py test``: without DATABASE_URL, on a local server that is started for the run."""

import threading
from decimal import Decimal

from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.test import TestCase, TransactionTestCase

from dsql_dialects.django import retry_on_conflict
from orders.models import Item, Order
from orders.operations import Line, create_order

LINES = [Line("Margherita", 1, Decimal("8.50")), Line("Diavola", 2, Decimal("10.00"))]


class OrderTests(TestCase):
    """Each test finds the class's order and nothing of another test."""

    @classmethod
    def setUpTestData(cls) -> None:
        cls.order = create_order("Ada", LINES)

    def test_what_is_stored(self) -> None:
        self.assertEqual(self.order.total, Decimal("28.50"))
        self.assertEqual(list(self.order.items.order_by("product").values_list("quantity", flat=True)), [2, 1])

    def test_a_failed_block_leaves_what_was_before(self) -> None:
        self.order.status = Order.Status.BAKED
        self.order.save()
        with self.assertRaises(IntegrityError), transaction.atomic():
            Item.objects.create(order=self.order, product="Diavola", quantity=1, price=1)
        self.order.refresh_from_db()
        self.assertEqual(self.order.status, Order.Status.BAKED)
        self.assertEqual(Item.objects.count(), 2)

    def test_a_change_is_undone_after_its_test(self) -> None:
        self.assertEqual(Order.objects.get().status, Order.Status.NEW)

    def test_over_http(self) -> None:
        body = {"customer": "Bob", "items": [{"product": "Funghi", "quantity": 3, "price": "9.00"}]}
        created = self.client.post("/orders/", body, content_type="application/json").json()
        self.assertEqual(created["total"], "27.00")
        self.assertEqual(self.client.get(f"/orders/{created['order_id']}/").json(), created)
        self.assertEqual(len(self.client.get("/orders/").json()["orders"]), 2)

    def test_in_the_admin(self) -> None:
        self.client.force_login(User.objects.create_superuser("root"))
        self.assertContains(self.client.get("/admin/orders/order/"), "Ada")
        self.client.post(f"/admin/orders/order/{self.order.pk}/delete/", {"post": "yes"})
        self.assertFalse(Item.objects.exists())


class ConcurrentTests(TransactionTestCase):
    """Transactions that are really committed, by several threads."""

    def test_both_of_two_writers_get_through(self) -> None:
        order = create_order("Ada", LINES)
        hooks: list[int] = []
        barrier = threading.Barrier(2, timeout=30)

        def add(price: int) -> None:
            first = True

            @retry_on_conflict
            def work() -> None:
                nonlocal first
                row = Order.objects.get(pk=order.pk)
                if first:  # both have read before either writes
                    first = False
                    barrier.wait()
                row.total += price
                row.save()
                transaction.on_commit(lambda: hooks.append(price))

            try:
                work()
            finally:
                connection.close()

        threads = [threading.Thread(target=add, args=(price,)) for price in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        order.refresh_from_db()
        self.assertEqual(order.total, Decimal("31.50"))
        self.assertEqual(sorted(hooks), [1, 2])

    def test_it_finds_an_empty_database(self) -> None:
        self.assertFalse(Order.objects.exists())
