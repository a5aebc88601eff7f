"""Step scores by plain transformers forward passes, as the models' cards write them: the oracle of the adapters.

Nothing of the library is used here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Causal:
    """A causal checkpoint that says "+" or "-" after a step."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(1)
        self.torch = torch
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def embedded(self, question: str, steps: Sequence[str]) -> list[float]:
        """Each prefix of the policy's own chat, read at its last token."""
        from asearch.problem import SYSTEM_PROMPT  # the text that this model was trained on

        chat = [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": question}]
        head = self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        prefixes = [head + "".join(steps[: k + 1]) for k in range(len(steps))]
        return [self._after(self._encode(prefix, special=False)) for prefix in prefixes]

    def rlhflow(self, question: str, steps: Sequence[str]) -> list[float]:
        """A growing conversation in which every verdict so far was "+"; read before the last one."""
        conversation: list[dict[str, str]] = []
        scores = []
        for k, step in enumerate(steps):
            content = step.strip() if k else f"{question} {step.strip()}"
            conversation += [{"role": "user", "content": content}, {"role": "assistant", "content": "+"}]
            text = self.tokenizer.apply_chat_template(conversation, tokenize=False)
            logits = self._logits(self._encode(text, special=False))
            scores.append(self._verdict(logits[-3]))  # behind it stand "+" and the end of the turn
        return scores

    def versa(self, question: str, steps: Sequence[str]) -> list[float]:
        """The whole text at once; read at each separator token."""
        text = question + " \n\n" + " \n\n\n\n".join(step.strip() for step in steps) + " \n\n\n\n"
        return self._at(text, self._encode(" \n\n\n\n", special=False)[-1])

    def shepherd(self, question: str, steps: Sequence[str]) -> list[float]:
        """The whole text at once; read at each step tag."""
        text = question + " " + "\n".join(" ".join(step.split()) + " ки" for step in steps)
        return self._at(text, self._encode("ки", special=False)[-1])

    def _at(self, text: str, tag: int) -> list[float]:
        ids = self._encode(text, special=True)
        logits = self._logits(ids)
        return [self._verdict(logits[i]) for i, token in enumerate(ids) if token == tag]

    def _after(self, ids: list[int]) -> float:
        return self._verdict(self._logits(ids)[-1])

    def _verdict(self, logits) -> float:
        good, bad = (self._encode(token, special=False) for token in "+-")
        assert len(good) == len(bad) == 1
        return float(self.torch.softmax(logits[[good[0], bad[0]]], -1)[0])

    def _logits(self, ids: list[int]):
        with self.torch.no_grad():
            return self.model(self.torch.tensor([ids])).logits[0]

    def _encode(self, text: str, *, special: bool) -> list[int]:
        return self.tokenizer(text, add_special_tokens=special)["input_ids"]


def qwen(folder: Path, question: str, steps: Sequence[str]) -> list[float]:
    """Qwen2.5-Math-PRM: the chat with a tag after each step; softmax of the two-layer head at the tags."""
    import torch
    from safetensors.torch import load_file

    body, tokenizer = _qwen_body(folder)
    system = "Please reason step by step, and put your final answer within \\boxed{}."
    chat = [
        {"role": "system", "content": system},
        {"role": "user", "content": question},
        {"role": "assistant", "content": "<extra_0>".join(step.strip() for step in steps) + "<extra_0>"},
    ]
    ids = tokenizer(tokenizer.apply_chat_template(chat, tokenize=False), add_special_tokens=False)["input_ids"]
    weights = load_file(str(folder / "model.safetensors"))
    with torch.no_grad():
        hidden = body(torch.tensor([ids])).last_hidden_state[0]
        inner = torch.relu(hidden @ weights["score.0.weight"].T + weights["score.0.bias"])
        logits = inner @ weights["score.2.weight"].T + weights["score.2.bias"]
    tag = tokenizer.convert_tokens_to_ids("<extra_0>")
    return [float(logits[i].softmax(-1)[1]) for i, token in enumerate(ids) if token == tag]


def skywork(folder: Path, question: str, steps: Sequence[str]) -> list[float]:
    """Skywork-o1-Open-PRM: ids put together step by step; sigmoid of the value head at each line break."""
    import torch
    from safetensors.torch import load_file

    body, tokenizer = _qwen_body(folder)
    line_break = tokenizer.encode("\n")[-1]
    ids = tokenizer.encode(tokenizer.bos_token + question + "\n")
    ends = []
    for step in steps:
        ids += [*tokenizer.encode(" ".join(step.split())), line_break]
        ends.append(len(ids) - 1)
    weights = load_file(str(folder / "model.safetensors"))
    with torch.no_grad():
        hidden = body(torch.tensor([ids])).last_hidden_state[0]
        values = hidden @ weights["v_head.summary.weight"].T + weights["v_head.summary.bias"]
    return [float(values[end, 0].sigmoid()) for end in ends]


def trl(folder: Path, question: str, steps: Sequence[str]) -> list[float]:
    """TRL's token classifiers: each prefix ends in the separator; the label of the last token."""
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForTokenClassification.from_pretrained(folder, dtype=torch.float32).eval()
    scores = []
    for k in range(len(steps)):
        text = "\n\n".join([question, *(step.strip() for step in steps[: k + 1])]) + "\n\n"
        with torch.no_grad():
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0, -1]
        scores.append(float(logits.softmax(-1)[1]))
    return scores


def outcome(folder: Path, question: str, answer: str) -> float:
    """A sequence classifier with one label, over the chat."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    chat = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    ids = tokenizer(tokenizer.apply_chat_template(chat, tokenize=False), add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        return float(model(torch.tensor([ids])).logits[0, 0].sigmoid())


def _qwen_body(folder: Path):
    """The Qwen2 body of a checkpoint that transformers has no class for."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, Qwen2Config, Qwen2Model

    torch.set_num_threads(1)
    body = Qwen2Model(Qwen2Config.from_pretrained(folder)).float().eval()
    weights = load_file(str(folder / "model.safetensors"))
    body.load_state_dict({k.removeprefix("model."): v for k, v in weights.items() if k.startswith("model.")})
    return body, AutoTokenizer.from_pretrained(folder)
