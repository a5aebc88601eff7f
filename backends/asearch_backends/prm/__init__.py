"""A server for process reward models that vLLM and TGI cannot serve, and for those who have neither.

    python -m asearch_backends.prm --model Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B

Transformers and torch do the arithmetic; the extra is `pip install 'asearch[prm]'`.
"""
