"""Changes of the catalogue between trainings: one port, with implementations in memory, SQLite and Redis."""
