"""Before anything imports scipy: the array API checks are skipped in silence without this."""

import os

os.environ["SCIPY_ARRAY_API"] = "1"
