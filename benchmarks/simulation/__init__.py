"""The library's own code on a virtual clock, against a model of GPU servers: hundreds of problems, up to 64 replicas.

- `hardware`: what one GPU does in which time, with the sources of the figures.
- `cache`, `engine`: a model of a continuous-batching server with paged KV memory and a prefix cache.
- `world`: what the models say, drawn by hash.
- `servers`, `network`: vLLM's protocol in front of the engines, and an aiohttp session that leads there.
- `lockstep`: the schedule of the reference, over the same clients.
- `bound`: how fast it could have been.
- `study`, `report`: runs, and their tables.
- `trace`, `calibrate`: the same model against the embedded servers, whose wall time can be measured.
"""
