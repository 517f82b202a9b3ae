"""Many machines, on one: `python -m benchmarks.machines COMMAND`, as root on Linux.

shell         a terminal, or a command, on the first of some hosts
link          how fast the network of the hosts is
throughput    two workers against one
kills         kills of workers and ranks
slow          indexing and training over a slow link
capacity      what scheduler, writer and search index can take
simulate      a million hours of video
tell          the figures of docs/machines.md
"""

import argparse
import sys

from benchmarks.machines import capacity, kills, simulate, slow, tell, throughput, use

PARTS = (use, throughput, kills, slow, capacity, simulate, tell)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.machines", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for part in PARTS:
        part.add(commands)
    options = parser.parse_args()
    code: int = options.run(options)
    return code


if __name__ == "__main__":
    sys.exit(main())
