"""`python -m trio_runner` is the command `trio-runner`."""

import sys

from trio_runner._cli import main

sys.exit(main())
