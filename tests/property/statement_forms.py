"""One statement in several forms: values written into its text, or bound; and again with other values."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field

from random_values import Kind, LiteralStyle, literal, parameter, parameter_form, random_text
from two_servers import Parameter, Step

_MARK = re.compile("\x01(\\d+)\x02")

#: Share of statements in the simple protocol, and below which share of the rest a named statement is prepared.
SIMPLE_SHARE = 0.45
NAMED_SHARE = 0.35
#: How often a statement is run; one of these.
RUNS = (1, 1, 1, 2, 3)


@dataclass(frozen=True)
class Value:
    """A value of a statement. A ``fixed`` one isn't drawn again."""

    kind: Kind
    text: str | None
    fixed: bool = False


@dataclass
class Values:
    """The values of one statement; its text holds a mark for each."""

    found: list[Value] = field(default_factory=list)

    def mark(self, kind: Kind, text: str | None, fixed: bool = False) -> str:
        self.found.append(Value(kind, text, fixed))
        return f"\x01{len(self.found) - 1}\x02"

    def drawn_again(self, rng: random.Random) -> list[Value]:
        """The values, but others. NULL stays NULL."""
        return [
            value if value.fixed or value.text is None else Value(value.kind, random_text(rng, value.kind))
            for value in self.found
        ]


class Form:
    """A statement's text with its values as literals (``share`` 0), as parameters (1), or some of each."""

    def __init__(self, sql: str, values: Values, share: float, rng: random.Random) -> None:
        self._bound: list[tuple[int, int, bool]] = []  #: number of the value, type, whether in binary format
        self._styles = [LiteralStyle.random(rng) for _ in values.found]
        kept = values.found

        def place(match: re.Match[str]) -> str:
            number = int(match[1])
            if rng.random() >= share:
                return match[0] if share == 0 else literal(kept[number].kind, kept[number].text, self._styles[number])
            oid, binary = parameter_form(kept[number].kind, kept[number].text, rng)
            self._bound.append((number, oid, binary))
            return f"${len(self._bound)}"

        self._sql = _MARK.sub(place, sql)

    @property
    def has_parameters(self) -> bool:
        return bool(self._bound)

    def render(self, values: list[Value]) -> tuple[str, tuple[Parameter, ...]]:
        """The text and the parameters for these values. With parameters, the text doesn't depend on the values."""
        sql = _MARK.sub(lambda m: self._literal(values, int(m[1])), self._sql)
        bound = tuple(parameter(values[n].kind, values[n].text, oid, binary) for n, oid, binary in self._bound)
        return sql, bound

    def _literal(self, values: list[Value], number: int) -> str:
        return literal(values[number].kind, values[number].text, self._styles[number])


class Forms:
    """Makes steps of statements."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._names = 0

    def steps(self, sql: str, values: Values, *, ordered: bool, ambiguous: bool, both: bool, once: bool) -> list[Step]:
        """The statement, perhaps several times with other values; with ``both`` as literals and as parameters."""
        rng = self._rng
        forms = [Form(sql, values, share, rng) for share in self._shares(both)]
        runs = rng.choice(RUNS) if values.found and not once else 1
        steps = []
        binary, named = rng.random() < 0.3, rng.random() < NAMED_SHARE
        names = [self._name(form, named) for form in forms]
        for run in range(runs):
            drawn = values.found if run == 0 else values.drawn_again(rng)
            for form, name in zip(forms, names, strict=True):
                text, bound = form.render(drawn)
                if form.has_parameters:
                    steps.append(Step(text, bound, binary, name, ordered, ambiguous))
                else:
                    steps.append(Step(text, None, False, None, ordered, ambiguous))
        return steps

    def _shares(self, both: bool) -> tuple[float, ...]:
        if both and self._rng.random() < 0.15:
            return 0.0, 1.0
        if self._rng.random() < SIMPLE_SHARE:
            return (0.0,)
        return (self._rng.choice((1.0, 1.0, 0.5)),)

    def _name(self, form: Form, named: bool) -> str | None:
        if not named or not form.has_parameters:
            return None
        self._names += 1
        return f"s{self._names}"
