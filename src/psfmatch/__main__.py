"""``python -m psfmatch`` is the command line."""

from psfmatch.cli import main

if __name__ == "__main__":
    main()
