"""The command line `population`: looks at recorded runs, and stops them.

Each command is a module with `NAME`, `HELP`, `add(parser)` for its arguments, and
`run(options)`, which prints and returns the exit code. `main` lists them.
"""
