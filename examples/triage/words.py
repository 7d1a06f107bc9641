"""
A small text classifier: multinomial naive Bayes over words.

Source: Manning, Raghavan & Schütze 2008, "Introduction to Information Retrieval", section 13.2.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MESSAGES = Path(__file__).with_name("messages.csv")

_WORD = re.compile(r"[a-z']+")


@dataclass(frozen=True)
class Label:
    """A label and its probability, 0..1."""

    name: str
    probability: float


class WordClassifier:
    """
    Labels texts by their words.

    Args:
        texts: The examples.
        labels: The label of each example.
    """

    def __init__(self, texts: Sequence[str], labels: Sequence[str]) -> None:
        self._labels = sorted(set(labels))
        self._vocabulary = {word: n for n, word in enumerate(sorted({word for text in texts for word in _words(text)}))}
        membership = np.array([[label == name for name in self._labels] for label in labels], dtype=float)
        # Add-one smoothing: a word without examples of a label does not rule the label out.
        totals = membership.T @ self._count(texts) + 1
        self._word_weights = np.log(totals / totals.sum(axis=1, keepdims=True))
        self._label_weights = np.log(membership.mean(axis=0))

    def classify(self, texts: Sequence[str]) -> list[Label]:
        """
        Return the most likely label of each text.

        Each label equals that of a call with this text alone. Cost: O(texts * vocabulary * labels).
        """
        # One product per row: a matrix product may round a row differently, depending on the other rows.
        scores = np.stack([self._word_weights @ counts for counts in self._count(texts)]) + self._label_weights
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares = odds / odds.sum(axis=1, keepdims=True)
        best = shares.argmax(axis=1)
        return [Label(self._labels[n], round(float(row[n]), 3)) for n, row in zip(best, shares, strict=True)]

    def _count(self, texts: Sequence[str]) -> NDArray[np.float64]:
        counts = np.zeros((len(texts), len(self._vocabulary)))
        for row, text in enumerate(texts):
            for word in _words(text):
                if word in self._vocabulary:
                    counts[row, self._vocabulary[word]] += 1
        return counts


def train(column: str) -> WordClassifier:
    """Return a classifier trained on *column* ("topic" or "urgency") of messages.csv."""
    with MESSAGES.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return WordClassifier([row["text"] for row in rows], [row[column] for row in rows])


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
