"""`python -m hetero.cli`: the command where its script is not installed, as in a job on a cluster."""

from hetero.cli.app import main

if __name__ == "__main__":
    main()
