"""How the embedded models were made: task text, tokenizer, policy, process reward model (extra: train)."""
