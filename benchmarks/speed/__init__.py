"""How fast the library is."""
