"""`python -m videoprism_mlx.convert` is `videoprism-mlx convert`."""

import sys

from videoprism_mlx.cli import main

sys.exit(main(["convert", *sys.argv[1:]]))
