"""Types of what the classes of this package inherit from scikit-learn, which has none.

Without them every base class would be Any, and so would any attribute of ours that there is not.
All else of scikit-learn stays Any.
"""

from typing import Any

def __getattr__(name: str) -> Any: ...
