"""`python -m mixlaw` is the command line."""

from mixlaw.cli import main

if __name__ == "__main__":
    main()
