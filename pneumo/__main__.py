"""Run `python -m pneumo` as `pneumo`."""

from pneumo.pipeline.cli import main

if __name__ == "__main__":
    main()
