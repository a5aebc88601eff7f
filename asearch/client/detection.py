"""Finding out what a server can do, once per endpoint, with a handful of small requests.

Only engines that state their context length (`max_model_len`, as vLLM, SGLang and our own server do) are sent probes
that generate, of one token each; a hosted API is never billed for being looked at.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Literal

from asearch.client.dialects import (
    ChatDialect,
    Draw,
    PrefillDialect,
    TextDialect,
    TokenDialect,
    VLLMTokenizer,
    completion,
    prefilled,
    sampled,
)
from asearch.client.replies import seeds_choices, tells_stop
from asearch.errors import BadRequest, NotFound, ProtocolError, UsageError
from asearch.path import Sampling
from asearch.problem import STEP_SEPARATOR, Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asearch.client.dialects import Dialect
    from asearch.transport import Endpoint, Json

Mode = Literal["tokens", "text", "prefill", "chat"]
PROBE = Problem("1", system=None)
ONE_TOKEN = Draw(1, Sampling(temperature=0.0), seed=0, stop=None, max_tokens=1)
NOT_HERE = (NotFound, BadRequest, ProtocolError)


class Unfit(Exception):
    """One way to continue does not work on this server; the text says why."""


class Detection:
    """One look at a server.

    Args:
        endpoint: the server.
        model: the served name.
        engine: it is an inference engine that may be probed.
        render: the user's own rendering of a problem as prompt text, if any.
    """

    def __init__(
        self, endpoint: Endpoint, model: str, *, engine: bool, render: Callable[[Problem], Any] | None = None
    ) -> None:
        self._endpoint = endpoint
        self._model = model
        self._engine = engine
        self._render = render
        self._tokenizer = VLLMTokenizer(endpoint, model)
        self.reasons: list[str] = []  # why each better way was not taken

    async def best(self, mode: Mode | None) -> Dialect:
        """The best way to continue that works here, or the one that was asked for.

        Raises:
            UsageError: the mode that was asked for does not work here.
        """
        ways = {"tokens": self.tokens, "text": self.text, "prefill": self.prefill, "chat": self.chat}
        for name, way in ways.items():
            if mode in (None, name):
                try:
                    return await way()
                except Unfit as unfit:
                    self.reasons.append(str(unfit))
        raise UsageError(f"{self._endpoint.url} does not work with mode={mode!r}: {'; '.join(self.reasons)}")

    async def tokens(self) -> Dialect:
        """Token ids in and out: `/tokenize` renders chats, and completions return ids and the stop reason."""
        if not self._engine:
            raise Unfit("it states no max_model_len, as engines that return token ids do")
        try:
            ids = await self._tokenizer.chat(PROBE) if self._render is None else await self._tokenizer.text("1")
        except NOT_HERE as failure:
            raise Unfit(f"/tokenize does not render chats ({failure})") from failure
        try:
            choice = await self._complete(ids)
        except BadRequest as failure:
            raise Unfit(f"its completions refuse token ids ({failure})") from failure
        if not isinstance(choice.get("token_ids"), list) or not tells_stop(choice):
            raise Unfit("its completions lack token ids or the stop reason")
        render = self._tokenizer.chat if self._render is None else self._rendered_ids
        return TokenDialect(self._endpoint, render, self._tokenizer.text)

    async def text(self) -> Dialect:
        """Text prompts: the user renders, or the server does by way of ids; completions give the stop reason."""
        render: Callable[[Problem], Awaitable[str]] = self._rendered
        if self._render is None:
            if not self._engine:
                raise Unfit("it cannot render a chat as text (pass render= to do it yourself)")
            render = self._tokenizer.chat_text
        try:
            prompt = await render(PROBE)
        except NOT_HERE as failure:
            raise Unfit(f"it cannot render a chat as text ({failure})") from failure
        try:
            choice = await self._complete(prompt)
        except BadRequest as failure:
            raise Unfit(f"its completions refuse the prompt as text ({failure})") from failure
        if not tells_stop(choice):
            reason = "its completions do not tell a stop string from the end of the text"
            if self._render is None:
                raise Unfit(reason)
            self.reasons.append(reason)
        several, tells = seeds_choices(choice), tells_stop(choice)
        return TextDialect(self._endpoint, render, engine=self._engine, several=several, tells=tells)

    async def prefill(self) -> Dialect:
        """Chat with a prefilled assistant turn, if the template keeps the blank line at its end."""
        if not self._engine:
            raise Unfit("it states no max_model_len, as engines that continue a chat turn do")
        try:
            bare, blank = [await self._continue_chat(text) for text in ("A", f"A{STEP_SEPARATOR}")]
        except NOT_HERE as failure:
            raise Unfit(f"it does not continue an assistant turn ({failure})") from failure
        if not tells_stop(blank[0]):
            raise Unfit("its chat replies do not tell a stop string from the end of the text")
        if not blank[1] > bare[1]:
            raise Unfit("its chat template trims the blank line between steps")
        return PrefillDialect(self._endpoint, several=seeds_choices(blank[0]))

    async def chat(self) -> Dialect:
        """Plain chat: always there, or the first request says otherwise."""
        return ChatDialect(self._endpoint)

    async def _complete(self, prompt: str | list[int]) -> Json:
        """One token after a prompt: shows what a completion looks like here."""
        body = {"model": self._model, **completion(prompt, ONE_TOKEN, engine=self._engine)}
        try:
            reply = await self._endpoint.post("/v1/completions", body)
        except NotFound as failure:
            raise NotFound(
                "no route /v1/completions, so this server does not write text; is it a verifier?",
                endpoint=self._endpoint.url,
                status=failure.status,
            ) from failure
        return _first(reply, self._endpoint.url)

    async def _continue_chat(self, text: str) -> tuple[Json, int]:
        """One token after an assistant turn that begins with `text`, and the length of the prompt."""
        body = {"model": self._model, **prefilled(PROBE, text), **sampled(ONE_TOKEN)}
        reply = await self._endpoint.post("/v1/chat/completions", body)
        return _first(reply, self._endpoint.url), int((reply.get("usage") or {}).get("prompt_tokens") or 0)

    async def _rendered(self, problem: Problem) -> str:
        assert self._render is not None  # noqa: S101 - only taken as a way to render when there is one
        text = self._render(problem)
        if inspect.isawaitable(text):
            text = await text
        if not isinstance(text, str):
            raise UsageError(f"render= must return the prompt as a string, not {type(text).__name__}")
        return text

    async def _rendered_ids(self, problem: Problem) -> list[int]:
        return await self._tokenizer.text(await self._rendered(problem))


def _first(reply: Json, endpoint: str) -> Json:
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ProtocolError("a completion without choices; is this an OpenAI-compatible server?", endpoint=endpoint)
    return choices[0]
