"""The versioned catalog: what tables and indexes exist, how their rows are keyed, and how changes travel."""
