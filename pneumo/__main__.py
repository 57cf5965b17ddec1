"""`python -m pneumo` is `pneumo`."""

from pneumo.pipeline.cli import main

if __name__ == "__main__":
    main()
