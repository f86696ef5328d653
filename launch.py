"""Run a search: ``python launch.py --search demo`` (see ``--help``)."""

from xlt_ray.cli.app import main

if __name__ == "__main__":
    main()
