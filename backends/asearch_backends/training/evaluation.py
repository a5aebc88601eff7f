"""The strategies in a simple form inside one process, to steer training; the library measures the same over HTTP."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asearch_backends.embedded.task import BLANK_LINE, Problem, generate, is_right
from asearch_backends.training.corpus import prompts_of
from asearch_backends.training.judging import step_scores, within_problem_auc
from asearch_backends.training.sampler import LONGEST, sample
from asearch_backends.training.samples import Samples, draw_samples, final_scores
from asearch_backends.training.tokens import END, decode, token_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asearch_backends.training.llama import Llama

TEMPERATURE: Final = 0.8
WIDTH: Final = 4
DEEPEST: Final = 9  # steps; six operations and the closing sentence are seven
_BOXED: Final = re.compile(r"\\boxed\{([^{}]*)\}")


def answer_of(text: str) -> str | None:
    """What stands in the last box."""
    found = _BOXED.findall(text)
    return found[-1] if found else None


@dataclass(frozen=True, slots=True)
class Scored:
    """One finished solution: its answer and the score of its last step."""

    answer: str | None
    score: float
    text: str = ""


def greedy_accuracy(policy: Llama, problems: Sequence[Problem]) -> tuple[float, float]:
    """The share of right answers, and of solutions with every step right."""
    texts = [decode(ids) for ids in sample(policy, prompts_of(problems), temperature=0)]
    pairs = list(zip(problems, texts, strict=True))
    right = sum(answer_of(text) == problem.answer for problem, text in pairs)
    strict = sum(is_right(problem, text) for problem, text in pairs)
    return right / len(pairs), strict / len(pairs)


def majority(pool: Sequence[Scored]) -> str | None:
    """The most frequent answer."""
    return _winner([(each.answer, 1.0) for each in pool])


def best_of_n(pool: Sequence[Scored]) -> str | None:
    """The answer of the best-scored candidate."""
    answered = [each for each in pool if each.answer is not None]
    return max(answered, key=lambda each: each.score).answer if answered else None


def weighted(pool: Sequence[Scored]) -> str | None:
    """The answer with the greatest sum of scores."""
    return _winner([(each.answer, each.score) for each in pool])


def _winner(votes: Sequence[tuple[str | None, float]]) -> str | None:
    sums: dict[str, float] = defaultdict(float)
    for answer, weight in votes:
        if answer is not None:
            sums[answer] += weight
    return max(sums, key=lambda answer: sums[answer]) if sums else None


@dataclass(slots=True)
class _Path:
    problem: int
    subtree: int
    ids: list[int]
    score: float = 0.0


def search(
    policy: Llama, prm: Llama, problems: Sequence[Problem], n: int, *, diverse: bool, seed: int = 0
) -> list[list[Scored]]:
    """Beam search, or DVTS: the finished paths of every problem, all problems in lockstep.

    Beam search keeps the best n / WIDTH paths of a problem, DVTS the best path of each of n / WIDTH subtrees.
    """
    prompts = prompts_of(problems)
    kept = n // WIDTH
    paths = [_Path(index, tree, list(prompt)) for index, prompt in enumerate(prompts) for tree in range(kept)]
    finished: list[list[Scored]] = [[] for _ in problems]
    for depth in range(DEEPEST):
        if not paths:
            break
        grown = _grow(policy, paths, seed=1000 * seed + depth)
        ended = _score(prm, grown, prompts)
        best: list[_Path] = []
        groups: dict[tuple[int, int], list[_Path]] = defaultdict(list)
        for path in grown:
            groups[path.problem, path.subtree if diverse else 0].append(path)
        for group in groups.values():
            keep = 1 if diverse else kept - len(finished[group[0].problem])
            best += sorted(group, key=lambda path: -path.score)[: max(keep, 0)]
        for path in best:
            if id(path) in ended:
                text = decode(path.ids[len(prompts[path.problem]) :])
                finished[path.problem].append(Scored(answer_of(text), path.score, text))
        paths = [path for path in best if id(path) not in ended and len(path.ids) < LONGEST - 1]
    return finished


def _grow(policy: Llama, paths: Sequence[_Path], seed: int) -> list[_Path]:
    """WIDTH continuations by one step of every path."""
    wide = [path for path in paths for _ in range(WIDTH)]
    steps = sample(policy, [path.ids for path in wide], temperature=TEMPERATURE, seed=seed, ends=(BLANK_LINE, END))
    return [_Path(path.problem, path.subtree, path.ids + step) for path, step in zip(wide, steps, strict=True)]


def _score(prm: Llama, grown: Sequence[_Path], prompts: Sequence[list[int]]) -> set[int]:
    """Scores every path by its last step; returns which have ended."""
    end = token_id(END)
    rows = []
    for path in grown:
        text = path.ids[:-1] if path.ids[-1] == end else path.ids
        rows.append((text, len(prompts[path.problem])))
    for path, scores in zip(grown, step_scores(prm, rows), strict=True):
        path.score = scores[-1] if scores else 0.0
    return {id(path) for path in grown if path.ids[-1] == end}


def judge_report(prm: Llama, samples: Samples) -> dict[str, float]:
    """How well final scores tell right from wrong answers to the same problem."""
    problems, answers = samples.flat()
    scores = [row[-1] if row else 0.0 for row in final_scores(prm, problems, answers)]
    strict = [is_right(problem, answer) for problem, answer in zip(problems, answers, strict=True)]
    lucky = [answer_of(answer) == problem.answer for problem, answer in zip(problems, answers, strict=True)]
    wrong = [score for score, right in zip(scores, strict, strict=True) if not right]
    good = [score for score, right in zip(scores, strict, strict=True) if right]
    each = len(samples.answers[0])
    starts = range(0, len(scores), each)
    return {
        "strict AUC": within_problem_auc(
            [list(zip(scores[i : i + each], strict[i : i + each], strict=True)) for i in starts]
        ),
        "answer AUC": within_problem_auc(
            [list(zip(scores[i : i + each], lucky[i : i + each], strict=True)) for i in starts]
        ),
        "false positives at 0.5": sum(score > 0.5 for score in wrong) / max(1, len(wrong)),
        "false negatives at 0.5": sum(score <= 0.5 for score in good) / max(1, len(good)),
        "answers right": sum(lucky) / len(lucky),
        "all steps right": sum(strict) / len(strict),
    }


def evaluate(
    policy: Llama,
    prm: Llama,
    large: Llama | None,
    *,
    count: int = 100,
    seed: int = 0,
    budgets: Sequence[int] = (4, 16, 64),
) -> None:
    """Prints the whole comparison on validation problems."""
    problems = generate(seed, count, "validation")
    print("greedy (answers, all steps):", *map(_percent, greedy_accuracy(policy, problems)))
    if large is not None:
        print("larger policy, greedy:", *map(_percent, greedy_accuracy(large, problems)))
    samples = draw_samples(policy, seed, count, max(budgets), temperature=TEMPERATURE, split="validation")
    for name, value in judge_report(prm, samples).items():
        print(f"{name}: {value:.4f}")
    pools = scored_pools(prm, samples)
    for n in budgets:
        row = sampled_row(problems, pools, n, seed)
        if n >= 4:
            for name, diverse in (("beam", False), ("dvts", True)):
                found = search(policy, prm, problems, n, diverse=diverse, seed=seed)
                row[name] = accuracy(problems, [weighted(pool) for pool in found])
        print(f"n={n}", *(f"{name} {_percent(value)}" for name, value in row.items()), sep="  ", flush=True)


def scored_pools(prm: Llama, samples: Samples) -> list[list[Scored]]:
    """All sampled answers with their final scores, problem by problem."""
    problems, answers = samples.flat()
    rows = final_scores(prm, problems, answers)
    scored = [Scored(answer_of(text), row[-1] if row else 0.0) for text, row in zip(answers, rows, strict=True)]
    each = len(samples.answers[0])
    return [scored[start : start + each] for start in range(0, len(scored), each)]


def sampled_row(problems: Sequence[Problem], pools: Sequence[Sequence[Scored]], n: int, seed: int) -> dict[str, float]:
    """The strategies that only choose among whole samples, averaged over ten draws of n from the pool."""
    rng = random.Random(seed)
    sums: dict[str, float] = defaultdict(float)
    draws = 10
    for _ in range(draws):
        drawn = [rng.sample(pool, n) for pool in pools]
        for name, choose in (("majority", majority), ("best-of-n", best_of_n), ("weighted", weighted)):
            sums[name] += accuracy(problems, [choose(pool) for pool in drawn]) / draws
        right = [
            any(each.answer == problem.answer for each in pool) for problem, pool in zip(problems, drawn, strict=True)
        ]
        sums["pass"] += sum(right) / len(right) / draws
    return dict(sums)


def accuracy(problems: Sequence[Problem], answers: Sequence[str | None]) -> float:
    """The share of right answers."""
    return sum(answer == problem.answer for problem, answer in zip(problems, answers, strict=True)) / len(problems)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"
