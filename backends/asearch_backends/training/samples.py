"""What a policy really writes: solutions sampled from it, kept in a file, and labelled by the exact checker."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asearch_backends.embedded.task import Problem, Split, generate
from asearch_backends.training.corpus import VARIED, prompts_of
from asearch_backends.training.judging import step_scores
from asearch_backends.training.sampler import sample
from asearch_backends.training.tokens import conversation, decode, encode
from asearch_backends.training.verdicts import Example, examples_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from asearch_backends.training.llama import Llama


@dataclass(frozen=True, slots=True)
class Samples:
    """Several answers to each of some problems, in the problems' order."""

    problems: list[Problem]
    answers: list[list[str]]

    def flat(self) -> tuple[list[Problem], list[str]]:
        """One row per answer."""
        pairs = [(problem, answer) for problem, row in zip(self.problems, self.answers, strict=True) for answer in row]
        return [problem for problem, _ in pairs], [answer for _, answer in pairs]

    def examples(self) -> list[Example]:
        """All answers with exact verdicts."""
        return examples_of(*self.flat())


def draw_samples(
    policy: Llama, seed: int, problems: int, each: int, *, temperature: float, split: Split = "train"
) -> Samples:
    """Samples so many answers to each of so many fresh problems."""
    varied = VARIED if split == "train" else 0.0
    chosen = generate(seed, problems, split, varied=varied)
    prompts = [prompt for prompt in prompts_of(chosen) for _ in range(each)]
    texts = [decode(ids) for ids in sample(policy, prompts, temperature=temperature, seed=seed)]
    return Samples(chosen, [texts[start : start + each] for start in range(0, len(texts), each)])


def save_samples(samples: Samples, path: Path, seed: int, split: Split = "train") -> None:
    """Writes the answers; the problems come back from their seed."""
    varied = VARIED if split == "train" else 0.0
    record = {"seed": seed, "split": split, "varied": varied, "answers": samples.answers}
    path.write_text(json.dumps(record))


def load_samples(path: Path) -> Samples:
    """Reads what `save_samples` wrote."""
    record = json.loads(path.read_text())
    answers: list[list[str]] = record["answers"]
    return Samples(generate(record["seed"], len(answers), record["split"], varied=record["varied"]), answers)


def final_scores(prm: Llama, problems: list[Problem], answers: list[str]) -> list[list[float]]:
    """The step scores of complete answers."""
    prompts = prompts_of(problems)
    texts = encode(conversation(problem.text, answer) for problem, answer in zip(problems, answers, strict=True))
    return step_scores(prm, [(ids, len(prompt)) for ids, prompt in zip(texts, prompts, strict=True)])


def mine(prm: Llama, samples: Samples, *, most: int = 8) -> list[Example]:
    """The wrong answers among samples that search would fall for."""
    problems, answers = samples.flat()
    scores = [row[-1] if row else 0.0 for row in final_scores(prm, problems, answers)]
    return fallen_for(problems, answers, scores, most=most)


def fallen_for(
    problems: Sequence[Problem], answers: Sequence[str], scores: Sequence[float], *, above: float = 0.2, most: int
) -> list[Example]:
    """Of each problem the wrong answers that were scored best, if they were scored well at all; each text once."""
    by_problem: dict[str, list[tuple[float, Problem, str]]] = defaultdict(list)
    for problem, answer, score in zip(problems, answers, scores, strict=True):
        if score > above:
            by_problem[problem.text].append((score, problem, answer))
    found: list[Example] = []
    for rows in by_problem.values():
        best = sorted({(score, answer): problem for score, problem, answer in rows}.items(), reverse=True)
        examples = examples_of([problem for _, problem in best], [answer for (_, answer), _ in best])
        found += [example for example in examples if example.wrong is not None][:most]
    return found
