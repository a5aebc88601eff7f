"""Small models on a CPU behind vLLM's HTTP protocol: `python -m asearch_backends.embedded --model policy`."""
