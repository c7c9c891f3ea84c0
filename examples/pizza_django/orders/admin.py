"""Orders in the admin, with their items."""

from django.contrib import admin

from orders.models import Item, Order


class ItemInline(admin.TabularInline):
    """An order's items under it."""

    model = Item
    extra = 1


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    """Newest first."""

    list_display = ["customer", "status", "total", "created_at"]
    list_filter = ["status"]
    ordering = ["-created_at"]
    inlines = [ItemInline]
