"""Several short texts in one row of the model's input: no token is computed that no text has.

A question has some 20 tokens, and those of a batch differ much in length: padded to the longest, half of what is
computed is padding. Here a row holds one text after the other, each with positions of its own, and a mask keeps each
from attending to the others, so that the vectors are those of the texts alone. (Krell et al., "Efficient Sequence
Packing without Cross-contamination", 2021.)
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Packed:
    """Texts laid out in rows.

    Attributes:
        ids: (rows, width) int64 token ids.
        positions: (rows, width) int64, the place of each token in its text.
        owner: (rows, width) int64, the number of the text that a token is of; -1 for padding.
        flat: (tokens,) int64, where the tokens of the texts are in the flattened rows, text after text.
    """

    ids: np.ndarray
    positions: np.ndarray
    owner: np.ndarray
    flat: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """(rows, width, width) bool: whether a token attends to another."""
        same: np.ndarray = self.owner[:, :, None] == self.owner[:, None, :]
        return same


def pack(token_ids: list[list[int]], *, pad_id: int, width: int) -> Packed:
    """Lay texts out in few rows: the longest first, each in the first row that has room for it.

    Args:
        token_ids: Tokens of each text, at least one.
        pad_id: What the ends of rows are filled with.
        width: Most tokens in a row; a longer text has a row of its own.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for text in sorted(range(len(token_ids)), key=lambda one: -len(token_ids[one])):
        needed = len(token_ids[text])
        place = next((at for at, left in enumerate(room) if left >= needed), None)
        if place is None:
            rows.append([text])
            room.append(width - needed)
        else:
            rows[place].append(text)
            room[place] -= needed
    used = max(sum(len(token_ids[text]) for text in row) for row in rows)
    ids = np.full((len(rows), used), pad_id, np.int64)
    positions = np.zeros((len(rows), used), np.int64)
    owner = np.full((len(rows), used), -1, np.int64)
    begins = np.zeros(len(token_ids), np.int64)
    for number, row in enumerate(rows):
        at = 0
        for text in row:
            end = at + len(token_ids[text])
            ids[number, at:end] = token_ids[text]
            positions[number, at:end] = np.arange(end - at)
            owner[number, at:end] = text
            begins[text] = number * used + at
            at = end
    flat = np.concatenate([begins[text] + np.arange(len(tokens)) for text, tokens in enumerate(token_ids)])
    return Packed(ids, positions, owner, flat)
