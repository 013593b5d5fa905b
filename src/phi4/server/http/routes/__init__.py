"""The routes: each reads bodies with `schemas`, asks an `Exchange`, and puts answers into OpenAI's shapes."""
