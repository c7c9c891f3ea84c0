"""Exact sums of ``numeric`` columns: digit by digit over all rows, in powers of 10,000."""

from __future__ import annotations

from decimal import Context, Decimal

import numpy as np

from dsql_server.encoding import numeric
from dsql_server.storage.columns import Column

_BASE = 10_000
_HEADER_BYTES = 8  #: number of digits, weight of the first, sign, display scale
_DIGIT_BYTES = 2
_POSITIVE, _NEGATIVE = 0x0000, 0x4000
#: Numbers with more digits than this (of base 10,000) are left to the caller, and so are NaN and the infinities.
DIGITS_MAX = 16
_WEIGHT_MAX = 64
_EXACT = Context(prec=numeric.INTEGER_DIGITS_MAX + numeric.SCALE_MAX + 20, traps=[])


class NumericSum:
    """The sum of the columns' values that it takes; see :meth:`add`."""

    def __init__(self) -> None:
        self._lowest = -(_WEIGHT_MAX + DIGITS_MAX)
        #: the sum of all digits at each power of 10,000, lowest first; exact while below 2^63
        self._digits = [0] * (2 * _WEIGHT_MAX + DIGITS_MAX + 1)
        self._scale = 0
        self._is_empty = True

    def add(self, values: Column) -> Column:
        """Add a column without NULLs; returns the values that weren't taken."""
        batch, at = values.batch, values.at
        if not len(at):
            return values
        counts, weights = batch.read(at, ">i2"), batch.read(at + 2, ">i2")
        signs, scales = batch.read(at + 4, ">u2"), batch.read(at + 6, ">u2")
        taken = (counts <= DIGITS_MAX) & (np.abs(weights) <= _WEIGHT_MAX)
        taken &= (signs == _POSITIVE) | (signs == _NEGATIVE)
        rest = Column(batch, at[~taken], values.lengths[~taken])
        at, counts, weights, scales = at[taken], counts[taken], weights[taken], scales[taken]
        if not len(at):
            return rest
        self._is_empty = False
        self._scale = max(self._scale, int(scales.max()))
        factors = np.where(signs[taken] == _NEGATIVE, -1, 1)
        for number in range(int(counts.max())):
            has = counts > number
            digits = batch.read(at[has] + _HEADER_BYTES + _DIGIT_BYTES * number, ">i2") * factors[has]
            places = weights[has] - number - self._lowest
            # Sums of so few, so small numbers are exact in double precision.
            sums = np.bincount(places, digits, len(self._digits))
            for place in np.flatnonzero(sums).tolist():
                self._digits[place] += int(sums[place])
        return rest

    def result(self) -> Decimal | None:
        """The sum with the greatest display scale of all values, or None without any."""
        if self._is_empty:
            return None
        total = 0
        for digit in reversed(self._digits):
            total = total * _BASE + digit
        # total * 10,000^lowest; the display scale says how many of the digits count.
        value = Decimal(total).scaleb(4 * self._lowest, _EXACT)
        return value.quantize(Decimal(1).scaleb(-self._scale), context=_EXACT)
