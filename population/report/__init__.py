"""What a person sees of a run: bars, tables, pictures."""
