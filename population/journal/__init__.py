"""The journal: its records, its contract, and the SQLite implementation."""
