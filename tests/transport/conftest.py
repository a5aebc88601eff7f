"""The real servers of the transport's tests."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "clients"))  # stub_server
