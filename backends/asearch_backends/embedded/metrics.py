"""/metrics in Prometheus text, under vLLM's names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asearch_backends.embedded.engine import Engine


def prometheus_text(engine: Engine, model: str) -> str:
    """The counters of an engine."""
    counters = engine.counters
    gauges = {"num_requests_running": engine.running, "num_requests_waiting": engine.waiting}
    totals = {
        "prompt_tokens_total": counters.prompt_tokens,
        "generation_tokens_total": counters.generation_tokens,
        "prefix_cache_queries_total": counters.cache_queries,
        "prefix_cache_hits_total": counters.cache_hits,
        "prompt_tokens_cached_total": counters.cache_hits,
        "engine_steps_total": counters.steps,
    }
    label = f'model_name="{model}"'
    lines = [line for name, value in gauges.items() for line in _metric(name, "gauge", {label: value})]
    lines += [line for name, value in totals.items() for line in _metric(name, "counter", {label: value})]
    finished = {f'finished_reason="{reason}",{label}': count for reason, count in counters.finished.items()}
    lines += _metric("request_success_total", "counter", finished)
    return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, values: dict[str, int]) -> list[str]:
    rows = [f"vllm:{name}{{{labels}}} {float(value)}" for labels, value in values.items()]
    return [f"# TYPE vllm:{name} {kind}", *rows]
