"""SQL's comparison operators, for encodings that sort as their values do, and for columns of them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

#: By the operator's name. Of columns (numpy arrays) the result is a column, too.
ORDERINGS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
