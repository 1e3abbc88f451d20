"""`python -m kdrun` is `kdrun`."""

from kdrun.cli.main import main

if __name__ == "__main__":
    main()
