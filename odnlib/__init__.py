"""Optimally Deep Networks: find the depth a dataset needs, cut the rest off."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # the repository: notebooks/, results/ and data/ lie here
