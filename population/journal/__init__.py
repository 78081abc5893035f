"""What a run records, and where: the records, the contract of a journal, SQLite."""
