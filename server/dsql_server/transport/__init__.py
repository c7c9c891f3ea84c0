"""Sockets on the event loop, for clients and for engines."""
