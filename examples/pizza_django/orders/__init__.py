"""Pizza orders as a Django application."""
