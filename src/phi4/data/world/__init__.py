"""The small world: its words, and one generator of records per task."""
