"""`python -m asearch`."""

import sys

from asearch.cli import main

sys.exit(main())
