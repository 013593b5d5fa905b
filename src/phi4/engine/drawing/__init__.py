"""Which token comes next: the reference sampler, what requests add to logits, guesses of what follows."""
