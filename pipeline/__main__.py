"""`python -m pipeline` is `pneumo`."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
