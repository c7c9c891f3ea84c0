"""Orders as JSON."""

import datetime as dt
import json
import uuid
from decimal import Decimal

from django.http import Http404, HttpRequest, JsonResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_http_methods

from dsql_dialects.django import replay_safe
from orders.models import Order
from orders.operations import Line, create_order, get_order, list_orders

LISTED = dt.timedelta(days=1)


def _plain(order: Order) -> dict[str, object]:
    return {
        "order_id": order.order_id,
        "customer": order.customer,
        "status": order.status,
        "total": order.total,
        "items": [{"product": item.product, "quantity": item.quantity} for item in order.items.all()],
    }


@replay_safe
@csrf_exempt
@require_http_methods(["GET", "POST"])
def orders(request: HttpRequest) -> JsonResponse:
    """List the last day's orders, or take a new one."""
    if request.method == "POST":
        wanted = json.loads(request.body)
        lines = [Line(line["product"], line["quantity"], Decimal(line["price"])) for line in wanted["items"]]
        return JsonResponse(_plain(create_order(wanted["customer"], lines)), status=201)
    now = timezone.now()
    found = list_orders(now - LISTED, now + LISTED).prefetch_related("items")
    return JsonResponse({"orders": [_plain(order) for order in found]})


@replay_safe
@require_GET
def order(request: HttpRequest, order_id: uuid.UUID) -> JsonResponse:
    """One order with its items."""
    found = get_order(order_id)
    if found is None:
        raise Http404(f"no order {order_id}")
    return JsonResponse(_plain(found))
