"""A mapping that cannot be changed, for values that are hashed and shared."""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

Value = TypeVar("Value")


class FrozenDict(dict[str, Value]):
    """A dict that cannot be changed; unlike a mapping proxy it can be pickled, copied and written as JSON."""

    def _refuse(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise TypeError("this mapping cannot be changed; make a new one with dict(...)")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)
