"""`python -m videoprism_mlx` is `videoprism-mlx`."""

import sys

from videoprism_mlx.cli import main

sys.exit(main())
