"""What crosses between roles (plain values) and what comes from outside (clock, network, disk, randomness).

A role imports this package and never another role's inside.
"""
