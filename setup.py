"""Which packages there are. All other settings are in pyproject.toml.

pyproject.toml can either find packages or list them. This project needs both: the rooms of
videoprism_mlx/ are found, so that a new one ships without being listed, and convert/, which lies
beside them, is installed as videoprism_mlx.convert.
"""

from setuptools import find_packages, setup

CONVERT = "videoprism_mlx.convert"

setup(
    packages=[
        *find_packages(include=["videoprism_mlx", "videoprism_mlx.*"]),
        CONVERT,
        *(f"{CONVERT}.{name}" for name in find_packages("convert")),
    ],
    package_dir={CONVERT: "convert"},
)
