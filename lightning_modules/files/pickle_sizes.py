"""What a pickle would unfold to, told from its opcodes before any of it is built."""

import pickle
import pickletools
from typing import Any

# A tuple that holds another one twice, and so on, is small, but to hash it takes a time that doubles with each.
MAX_UNFOLDED = 1 << 20  # items, or as many as there are bytes
MARK = -1


def refuse_false_sizes(file: Any) -> None:
    """Read the opcodes of the next pickle alone.

    Each length must be there; the memo, which C makes as long as told, is dense; and tuples, which may be hashed as
    keys, unfold to no more than a multiple of the file.

    Raises:
        Exception: of any kind, where that does not hold.
    """
    n_stored, at_most, start = 0, MAX_UNFOLDED, file.tell()
    stack: list[int] = []
    memo: dict[int, int] = {}
    for opcode, argument, position in pickletools.genops(file):
        name = opcode.name
        if "PUT" in name or name == "MEMOIZE":
            number = len(memo) if argument is None else int(argument)
            n_stored += 1
            if not 0 <= number <= 2 * n_stored + 64:
                raise pickle.UnpicklingError(f"object {number} stored after {n_stored} others")
            memo[number] = stack[-1]
        elif "GET" in name:
            stack.append(memo[int(argument or 0)])
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            _apply(opcode, stack)
            if stack and stack[-1] > max(at_most, (position or 0) - start):
                raise pickle.UnpicklingError(f"tuples that unfold to {stack[-1]:,} items")


def _apply(opcode: Any, stack: list[int]) -> None:
    """Replace what an opcode takes from the stack by what it leaves; an entry is the items that it unfolds to."""
    before, after = opcode.stack_before, opcode.stack_after
    if opcode.name == "MARK":
        stack.append(MARK)
        return
    taken: list[int] = []
    if pickletools.markobject in before or (opcode.name == "POP" and stack and stack[-1] == MARK):
        while stack and stack[-1] != MARK:
            taken.append(stack.pop())
        if stack:
            stack.pop()
        if pickletools.markobject in before:
            for _ in range(before.index(pickletools.markobject)):  # what lies below the mark
                taken.append(stack.pop())
    else:
        for _ in before:
            taken.append(stack.pop())
    is_tuple = "TUPLE" in opcode.name or opcode.name == "FROZENSET"
    stack.extend([1 + sum(taken) if is_tuple else 1] * len(after))
