"""`python -m hyperwatch`."""

from hyperwatch.cli.main import main

if __name__ == "__main__":
    main()
