"""`python -m fastsnn`."""

import sys

from .cli import main

sys.exit(main())
