"""Many users at once over HTTP, in the words of OpenAI's API: `phi4 serve`.

    routes (asyncio, `app.py`)  <-- frames -->  preparers, one engine (`worker/`)

The process that speaks HTTP decodes no media, tokenises nothing a client sent and computes no token. What can
crash, hang or swell does so in a process of its own, which is killed and started again. `docs/serving.md`.
"""
