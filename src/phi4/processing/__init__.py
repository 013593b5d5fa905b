"""The outside world becomes arrays: media, tokenizer, chat template, tool calls, the processor.

    from phi4.processing.processor import Processor
    from phi4.processing.tokenizer import Phi4Tokenizer

    inputs = Processor(config, Phi4Tokenizer.load("path/to/model")).prepare(messages)

Nothing here imports torch or knows a backend. Modules are imported by name, so that rendering a chat
does not pay for image and audio libraries.
"""
