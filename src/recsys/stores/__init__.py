"""Feature stores: one port, with implementations in memory, SQLite and Redis."""
