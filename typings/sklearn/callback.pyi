from typing import Any, Self, TypeVar

_T = TypeVar("_T")

def __getattr__(name: str) -> Any: ...
def with_callbacks(method: _T) -> _T: ...

class CallbackSupportMixin:
    def set_callbacks(self, *callbacks: Any) -> Self: ...
    def _init_callback_context(
        self,
        task_name: str = "fit",
        task_id: int = 0,
        max_subtasks: int | None = 0,
        sequential_subtasks: bool = True,
    ) -> Any: ...
