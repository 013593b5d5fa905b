"""What an answer is made of and when it ends: text and calls from tokens, stop rules, guards, grammars."""
