"""A whole cluster on virtual time: the same roles, a seeded network and seeded disks, and a check of what they did.

One seed is one run, down to every byte on the network; a failure replays exactly.
"""
