"""The crossbar: one stream of all journals, in order of T_commit, cut by key range."""
