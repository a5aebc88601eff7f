"""A search as a node of a LangGraph graph: try cheaply, and search harder where the verifier is not sure.

python examples/langgraph_node.py --problems 4
"""

import asyncio
from typing import TypedDict

from langgraph.graph import END, START, StateGraph
from servers import parser, search_servers

import asearch
from asearch.embedded import embedded_problems

SURE = 0.8  # the verifier's score from which on an answer is taken


class State(TypedDict, total=False):
    """What goes from node to node."""

    question: str
    answer: str | None
    score: float
    tokens: int
    tried: list[str]


def graph(servers, n):
    """First greedy decoding; where the verifier is not sure of it, DVTS."""

    def node(name, strategy):
        async def search(state: State) -> State:
            result = await asearch.solve(strategy, servers.policy, servers.prm, state["question"])
            spent = state.get("tokens", 0) + result.usage.tokens
            tried = [*state.get("tried", []), name]
            return {"answer": result.answer, "score": result.score or 0.0, "tokens": spent, "tried": tried}

        return search

    made = StateGraph(State)
    made.add_node("greedy", node("greedy", asearch.Greedy()))
    made.add_node("search", node("search", asearch.DVTS(n=n)))
    made.add_edge(START, "greedy")
    made.add_conditional_edges("greedy", lambda state: END if state["score"] >= SURE else "search", [END, "search"])
    made.add_edge("search", END)
    return made.compile()


async def main():
    arguments = parser(__doc__)
    arguments.add_argument("--problems", type=int, default=4)
    options = arguments.parse_args()
    problems = await embedded_problems(options.problems, seed=2)
    async with search_servers(options) as servers:
        solver = graph(servers, options.n)
        states = await asyncio.gather(*(solver.ainvoke({"question": question}) for question, _ in problems))
    for state, (_, right) in zip(states, problems, strict=True):
        print(
            f"{state['question']}\n  {' -> '.join(state['tried'])}: {state['answer']} (score {state['score']:.3f}, "
            f"{state['tokens']:,} tokens; right is {right})"
        )


if __name__ == "__main__":
    asyncio.run(main())
