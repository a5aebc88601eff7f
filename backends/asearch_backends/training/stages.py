"""The stages of the one command that makes the shipped models, each from files of the ones before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from asearch_backends.embedded.task import generate
from asearch_backends.training.evaluation import evaluate as print_evaluation
from asearch_backends.training.evaluation import judge_report, search
from asearch_backends.training.export import export, load
from asearch_backends.training.language_model import Recipe, train_language_model
from asearch_backends.training.reward_model import RewardRecipe, Trainee, train_reward_model
from asearch_backends.training.samples import draw_samples, fallen_for, load_samples, mine, save_samples

if TYPE_CHECKING:
    from collections.abc import Callable

    from asearch_backends.training.verdicts import Example

# Mistakes are mined with the first round at 2,000 of its 2,766 steps, where it falls for more of them than at the end.
MINED_WITH: Final = "trainee-2000.pt"
MODELS: Final = Path(__file__).parent.parent / "embedded" / "models"


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of everything, in tokens and problems, so that a run on any machine does the same work.

    The two policies see the same number of tokens. It was chosen on validation problems: fewer leave the small one
    helpless, more make it need no search.
    """

    policy_tokens: int = 2_800_000
    base_tokens: int = 9_000_000
    samples: int = 5_000  # problems
    samples_each: int = 4
    reward_start_tokens: int = 4_096_000  # at the full learning rate
    reward_tokens: int = 8_500_000  # while it falls
    hard_problems: int = 800
    hard_each: int = 16
    hard_tokens: int = 700_000
    searched_problems: int = 300
    searched_n: int = 32
    judged: int = 60  # validation problems, after each round of the process reward model
    evaluated: int = 100  # validation problems, for the comparison at the end

    def scaled(self, factor: float) -> Plan:
        """The same plan with every size times a factor: a rehearsal."""
        return Plan(*(max(1, round(getattr(self, name) * factor)) for name in self.__dataclass_fields__))


@dataclass(frozen=True, slots=True)
class Workshop:
    """A folder for what lies between the stages, the folder that the models go to, a seed, and the sizes."""

    folder: Path
    models: Path
    seed: int
    plan: Plan

    def policy(self) -> None:
        """The small policy."""
        model = train_language_model(Recipe(64, 4, 176, self.plan.policy_tokens, seed=self.seed + 1))
        export(model, self.models / "policy")

    def policy_large(self) -> None:
        """The larger policy: 4.04 times the parameters, the same recipe, the same number of tokens."""
        model = train_language_model(Recipe(128, 4, 368, self.plan.policy_tokens, seed=self.seed + 1))
        export(model, self.models / "policy-large")

    def base(self) -> None:
        """The language model that the process reward model starts from; it is trained until it hardly errs."""
        model = train_language_model(Recipe(128, 4, 352, self.plan.base_tokens, seed=self.seed + 11))
        export(model, self.folder / "base")

    def samples(self) -> None:
        """Solutions sampled from the small policy."""
        seed = self.seed + 101
        policy = load(self.models / "policy")
        drawn = draw_samples(policy, seed, self.plan.samples, self.plan.samples_each, temperature=0.8)
        save_samples(drawn, self.folder / "samples.json", seed)

    def prm(self) -> None:
        """The process reward model, first round."""
        pool = load_samples(self.folder / "samples.json").examples()
        start = RewardRecipe(self.plan.reward_start_tokens, batch=4096, seed=self.seed + 21, flat=1.0, shortened=0.0)
        trainee = train_reward_model(load(self.folder / "base"), pool, [], start)
        rest = RewardRecipe(self.plan.reward_tokens, seed=self.seed + 31, warm_up=20, flat=0.1)
        self._keep(train_reward_model(trainee, pool, [], rest, checkpoints=self.folder))

    def hard(self) -> None:
        """The second round: with wrong samples that the first scored well."""
        seed = self.seed + 102
        unfinished = self.folder / MINED_WITH
        miner = self._trainee(unfinished if unfinished.exists() else self.folder / "trainee.pt")
        drawn = draw_samples(
            load(self.models / "policy"), seed, self.plan.hard_problems, self.plan.hard_each, temperature=0.8
        )
        self._retrain(mine(miner.model, drawn), self.seed + 22)

    def searched(self) -> None:
        """The third round: with wrong solutions that beam search and DVTS found, and that were scored well."""
        problems = generate(self.seed + 103, self.plan.searched_problems, "train")
        policy, prm = load(self.models / "policy"), self._trainee(self.folder / "trainee.pt").model
        hard: list[Example] = []
        for diverse in (False, True):
            found = search(policy, prm, problems, self.plan.searched_n, diverse=diverse, seed=self.seed)
            rows = [(problem, each) for problem, pool in zip(problems, found, strict=True) for each in pool]
            hard += fallen_for([p for p, _ in rows], [e.text for _, e in rows], [e.score for _, e in rows], most=8)
        self._retrain(hard, self.seed + 23)

    def _trainee(self, weights: Path) -> Trainee:
        trainee = Trainee(load(self.folder / "base"))
        trainee.load_state_dict(torch.load(weights))
        return trainee

    def _retrain(self, hard: list[Example], seed: int) -> None:
        """A short round with mistakes that a search would fall for; the mean of the weights before and after is kept."""
        print(f"{len(hard)} wrong answers that search would fall for", flush=True)
        trainee = self._trainee(self.folder / "trainee.pt")
        pool = load_samples(self.folder / "samples.json").examples()
        recipe = RewardRecipe(self.plan.hard_tokens, seed=seed, warm_up=20, flat=0.1, peak=0.3)
        before = {name: tensor.clone() for name, tensor in trainee.state_dict().items()}
        after = train_reward_model(trainee, pool, hard, recipe).state_dict()
        # The mean of two neighbours judges better than either: it keeps what the round taught and loses its noise.
        trainee.load_state_dict({name: (before[name] + after[name]) / 2 for name in before})
        self._keep(trainee)

    def evaluate(self) -> None:
        """The comparison of all strategies on validation problems."""
        large = load(self.models / "policy-large") if (self.models / "policy-large").exists() else None
        print_evaluation(load(self.models / "policy"), load(self.models / "prm"), large, count=self.plan.evaluated)

    def _keep(self, trainee: Trainee) -> None:
        torch.save(trainee.state_dict(), self.folder / "trainee.pt")
        export(trainee.model, self.models / "prm")
        drawn = draw_samples(load(self.models / "policy"), 0, self.plan.judged, 32, temperature=0.8, split="validation")
        for name, value in judge_report(trainee.model, drawn).items():
            print(f"{name}: {value:.4f}")


STAGES: Final[dict[str, Callable[[Workshop], None]]] = {
    "policy": Workshop.policy,
    "policy-large": Workshop.policy_large,
    "base": Workshop.base,
    "samples": Workshop.samples,
    "prm": Workshop.prm,
    "hard": Workshop.hard,
    "searched": Workshop.searched,
    "evaluate": Workshop.evaluate,
}

# With how many threads the shipped models were made: sums in another order change the last digits, and training carries
# that on. Two threads train the larger models 1.7 times as fast as one.
THREADS: Final = {"base": 2, "prm": 2, "hard": 2, "searched": 2}
