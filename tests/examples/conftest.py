"""The scripts in examples/ import each other from their own folder."""

import sys
from pathlib import Path

REACTIONS = Path(__file__).parents[2] / "examples" / "reactions"
sys.path.insert(0, str(REACTIONS))
sys.path.insert(0, str(REACTIONS / "meter"))
