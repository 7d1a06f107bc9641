"""Feature stores, catalogues and exposure logs: a port for each, with implementations in memory, SQLite and Redis."""
