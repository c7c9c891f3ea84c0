"""Every message survives the wire, and nothing else is taken for one."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_server.interfaces import messages, wire

SCALARS = {
    int: st.integers(-(2**63), 2**63 - 1),
    bytes: st.binary(max_size=40),
    str: st.text(max_size=20),
    bool: st.booleans(),
    bytes | None: st.none() | st.binary(max_size=20),
}


def strategy(hint: Any) -> st.SearchStrategy[Any]:
    if hint in SCALARS:
        return SCALARS[hint]
    if hasattr(hint, "_fields"):
        hints = get_type_hints(hint)
        return st.tuples(*[strategy(hints[field]) for field in hint._fields]).map(lambda fields: hint(*fields))
    arguments = hint.__args__
    if arguments[-1] is Ellipsis:
        return st.lists(strategy(arguments[0]), max_size=3).map(tuple)
    return st.tuples(*[strategy(argument) for argument in arguments])


def message_types() -> list[type]:
    return [kind for kind in vars(messages).values() if hasattr(kind, "_fields")]


def test_every_message_has_a_number() -> None:
    assert set(message_types()) == set(wire.TYPES.values())


@given(st.data())
def test_every_message_survives(data: st.DataObject) -> None:
    message = data.draw(strategy(data.draw(st.sampled_from(message_types()))))
    decoded = wire.decode_message(wire.encode_message(message))
    assert decoded == message
    assert type(decoded) is type(message)


@given(st.data())
def test_a_message_cut_short_is_refused(data: st.DataObject) -> None:
    encoded = wire.encode_message(data.draw(strategy(messages.CommitRequest)))
    with pytest.raises(wire.NotUnderstood):
        wire.decode_message(encoded[: data.draw(st.integers(0, len(encoded) - 1))])


@given(st.binary(max_size=60))
def test_other_bytes_are_refused_or_a_message(data: bytes) -> None:
    try:
        wire.decode_message(data)
    except wire.NotUnderstood:
        pass


def test_an_older_sender_leaves_out_fields_with_defaults() -> None:
    request = messages.CommitRequest(b"i" * 16, 5, 1, (), ())
    encoded = wire.encode_message(request)
    older = encoded[:4] + bytes((5,)) + encoded[5:-1]  # without catalog_change
    assert wire.decode_message(older) == request


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "version"),
        (bytes((messages.MESSAGE_VERSION + 1, 0)), "version"),
        (bytes((messages.MESSAGE_VERSION, 7, 0xFF, 0xFF, 0)), "newer release"),
        (wire.encode_message(messages.Inquire(b"x")) + b"!", "behind the end"),
    ],
)
def test_refusals_say_what_is_wrong(data: bytes, named: str) -> None:
    with pytest.raises(wire.NotUnderstood, match=named):
        wire.decode_message(data)


def test_a_value_that_no_message_may_hold() -> None:
    with pytest.raises(TypeError, match="float"):
        wire.encode_message(messages.Committed(b"", 1.5))  # type: ignore[arg-type]
