"""The order workload: create an order with two items, get it with its items, list orders by time.

What the demo runs to show the commit path and the benchmark runs to measure it.
"""
