"""Evaluation: a dataset, strategies, budgets and seeds; a log that can be cut off at any moment and is gone on with."""

from __future__ import annotations

from asearch.evaluation.call import evaluate
from asearch.evaluation.datasets import Columns, Dataset, Source, load_dataset
from asearch.evaluation.folder import InUse, RunFailed, read_config, read_records
from asearch.evaluation.questions import Question
from asearch.evaluation.records import BadRecord, Key, Record
from asearch.evaluation.run import Progress, Run
from asearch.evaluation.votes import Cost, Outcome, outcomes, pass_at_k, vote

__all__ = [
    "BadRecord",
    "Columns",
    "Cost",
    "Dataset",
    "InUse",
    "Key",
    "Outcome",
    "Progress",
    "Question",
    "Record",
    "Run",
    "RunFailed",
    "Source",
    "evaluate",
    "load_dataset",
    "outcomes",
    "pass_at_k",
    "read_config",
    "read_records",
    "vote",
]
