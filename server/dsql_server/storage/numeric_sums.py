"""Exact sums of ``numeric`` columns: digit by digit over all rows, in powers of 10,000."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Context, Decimal

import numpy as np
from numpy.typing import NDArray

from dsql_server.encoding import numeric
from dsql_server.storage.columns import Column, Flags, Integers

_BASE = 10_000
_HEADER_BYTES = 8  #: number of digits, weight of the first, sign, display scale
_DIGIT_BYTES = 2
_POSITIVE, _NEGATIVE = 0x0000, 0x4000
#: Numbers with more digits than this (of base 10,000) are left to the caller, and so are NaN and the infinities.
DIGITS_MAX = 16
_WEIGHT_MAX = 64
_LOWEST = -(_WEIGHT_MAX + DIGITS_MAX)
_PLACES = 2 * _WEIGHT_MAX + DIGITS_MAX + 1
_EXACT = Context(prec=numeric.INTEGER_DIGITS_MAX + numeric.SCALE_MAX + 20, traps=[])


class _Parts:
    """The numbers of a column that are summed here, taken apart: headers side by side, digits on demand."""

    def __init__(self, values: Column) -> None:
        self._batch = values.batch
        counts, weights = self._batch.read(values.at, ">i2"), self._batch.read(values.at + 2, ">i2")
        signs = self._batch.read(values.at + 4, ">u2")
        taken = (counts <= DIGITS_MAX) & (np.abs(weights) <= _WEIGHT_MAX)
        taken &= (signs == _POSITIVE) | (signs == _NEGATIVE)
        self.taken: Flags = taken
        self._at = values.at[taken]
        self._counts, self._weights = counts[taken], weights[taken]
        self._factors = np.where(signs[taken] == _NEGATIVE, -1, 1)
        self.scales: Integers = self._batch.read(self._at + 6, ">u2")
        self.digits_max = int(self._counts.max()) if len(self._at) else 0

    def digits(self, number: int) -> tuple[Flags, Integers, NDArray[np.float64]]:
        """Which numbers have a digit of that number, the places of these digits, and the digits with their sign."""
        has = self._counts > number
        at = self._at[has] + _HEADER_BYTES + _DIGIT_BYTES * number
        digits = self._batch.read(at, ">i2") * self._factors[has]
        return has, self._weights[has] - number - _LOWEST, digits.astype(np.float64)


def _decimal(digits: Mapping[int, int], scale: int) -> Decimal:
    """The sum of ``digits``, given by their places, with a display scale."""
    lowest = min(digits, default=0)
    total = sum([digit * _BASE ** (place - lowest) for place, digit in digits.items()])
    # The display scale says how many of the digits count.
    value = Decimal(total).scaleb(4 * (lowest + _LOWEST), _EXACT)
    return value.quantize(Decimal(1).scaleb(-scale), context=_EXACT)


class NumericSum:
    """The sum of the columns' values that it takes; see :meth:`add`."""

    def __init__(self) -> None:
        #: the sum of all digits at each power of 10,000, lowest first; exact while below 2^63
        self._digits = [0] * _PLACES
        self._scale = 0
        self._is_empty = True

    def add(self, values: Column) -> Column:
        """Add a column without NULLs; returns the values that weren't taken."""
        if not len(values.at):
            return values
        parts = _Parts(values)
        if parts.taken.any():
            self._is_empty = False
            self._scale = max(self._scale, int(parts.scales.max()))
        for number in range(parts.digits_max):
            _, places, digits = parts.digits(number)
            # Sums of so few, so small numbers are exact in double precision.
            sums = np.bincount(places, digits, _PLACES)
            for place in np.flatnonzero(sums).tolist():
                self._digits[place] += int(sums[place])
        return Column(values.batch, values.at[~parts.taken], values.lengths[~parts.taken])

    def result(self) -> Decimal | None:
        """The sum with the greatest display scale of all values, or None without any."""
        if self._is_empty:
            return None
        return _decimal({place: digit for place, digit in enumerate(self._digits) if digit}, self._scale)


class GroupedNumericSums:
    """As :class:`NumericSum`, for many groups at once."""

    def __init__(self) -> None:
        self._digits: dict[int, Integers] = {}  #: by place: the sum of each group's digits
        self._scales: Integers = np.zeros(0, np.int64)  #: -1 where a group has no value

    def add(self, values: Column, groups: Integers, count: int) -> Flags:
        """Add a column without NULLs to groups, of which there are ``count``; returns which values weren't taken."""
        parts = _Parts(values)
        groups = groups[parts.taken]
        self._scales = grown(self._scales, count, -1)
        np.maximum.at(self._scales, groups, parts.scales)
        for number in range(parts.digits_max):
            has, places, digits = parts.digits(number)
            of_digits = groups[has]
            for place in np.flatnonzero(np.bincount(places)).tolist():
                here = places == place
                total = grown(self._digits.get(place, self._scales[:0]), count, 0)
                total[:count] += np.bincount(of_digits[here], digits[here], count).astype(np.int64)
                self._digits[place] = total
        rest: Flags = ~parts.taken
        return rest

    def result(self, group: int) -> Decimal | None:
        """The sum of one group, or None without any value."""
        if group >= len(self._scales) or self._scales[group] < 0:
            return None
        digits = {place: int(totals[group]) for place, totals in self._digits.items() if group < len(totals)}
        return _decimal(digits, int(self._scales[group]))


def grown(totals: Integers, count: int, initial: int = 0) -> Integers:
    """The totals with room for so many groups, the new ones with the initial value."""
    if len(totals) >= count:
        return totals
    longer = np.full(max(count, 2 * len(totals)), initial, np.int64)
    longer[: len(totals)] = totals
    return longer
