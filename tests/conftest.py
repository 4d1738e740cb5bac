"""Before anything imports scipy: the array API checks are skipped in silence without this."""

import os

os.environ["SCIPY_ARRAY_API"] = "1"
# So that what is skipped on Apple hardware is skipped for want of the hardware.
os.environ["PYTORCH_ENABLE_MPS_FALLBACK"] = "1"
