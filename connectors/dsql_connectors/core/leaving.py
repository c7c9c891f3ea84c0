"""Whether a ``with attempt:`` block was left towards the next attempt, or by ``return`` or ``break``.

A COMMIT that loses must be followed by another attempt. When ``return`` or ``break`` leaves the block, Python goes on
with it after ``__exit__``, whatever that answers: the loop never asks for another attempt, and the application would
take the lost transaction for committed. Python doesn't tell ``__exit__`` how the block is left, but the code that it
goes on with does: either it leads back to the head of the loop, or not. It is looked at only when a COMMIT has lost.
"""

from __future__ import annotations

import bisect
import dis
import functools
from types import CodeType

_HEADS = {"FOR_ITER": "GET_ITER", "GET_ANEXT": "GET_AITER"}
_ENDS = frozenset({"RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE", "END_ASYNC_FOR"})
_PREFIXES = frozenset({"EXTENDED_ARG", "SETUP_FINALLY", "NOP"})
_JUMPS = frozenset(dis.hasjrel) | frozenset(dis.hasjabs)


@functools.lru_cache(maxsize=256)
def leads_to_next_attempt(code: CodeType, offset: int) -> bool:
    """Whether the code from ``offset`` (a frame's ``f_lasti``) on can reach the head of the loop that it stands in,
    without beginning that loop anew. False also where no such loop is found."""
    instructions = list(dis.get_instructions(code))
    positions = {instruction.offset: position for position, instruction in enumerate(instructions)}
    # Python 3.12 points into an instruction's inline cache while it awaits.
    here = bisect.bisect_right([instruction.offset for instruction in instructions], offset) - 1
    if here < 0:
        return False
    loop = _enclosing_loop(instructions, positions, here)
    if loop is None:
        return False
    head, beginning = loop
    waiting, seen = [here], set()
    while waiting:
        position = waiting.pop()
        if position == head:
            return True
        if position in seen or position == beginning or position >= len(instructions):
            continue
        seen.add(position)
        instruction = instructions[position]
        if instruction.opname in _ENDS:
            continue
        if instruction.opcode in _JUMPS:
            waiting.append(positions[instruction.argval])
        if not _is_unconditional(instruction.opname):
            waiting.append(position + 1)
    return False


def _enclosing_loop(
    instructions: list[dis.Instruction], positions: dict[int, int], here: int
) -> tuple[int, int] | None:
    """The innermost loop around ``here``: the positions of its head and of the instruction that makes its iterator."""
    for head in range(here, -1, -1):
        iterator = _HEADS.get(instructions[head].opname)
        if iterator is None:
            continue
        label = head
        while label > 0 and instructions[label - 1].opname in _PREFIXES:
            label -= 1
        back_edges = [
            position
            for position, instruction in enumerate(instructions)
            if position > head and instruction.opcode in _JUMPS and label <= positions[instruction.argval] <= head
        ]
        if back_edges and max(back_edges) > here:
            beginning = next((p for p in range(label, -1, -1) if instructions[p].opname == iterator), -1)
            return head, beginning
    return None


def _is_unconditional(name: str) -> bool:
    return name.startswith("JUMP_") and "IF" not in name
