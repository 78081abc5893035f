"""`python -m population`: the command line."""

from population.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
