"""The chat format as a Jinja template, for programs that render prompts from one. phi4 never runs it.

Exports carry it (GGUF files, packages for onnxruntime-genai); phi4 renders with `phi4.processing.chat`.
"""

from __future__ import annotations

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + ('tool_response' if message['role'] == 'tool' else message['role']) + '|>' }}"
    "{% if message['content'] %}{{ message['content'] }}{% endif %}"
    "{% if message['role'] == 'system' and message['tools'] %}"
    "{{ '<|tool|>' + message['tools'] + '<|/tool|>' }}{% endif %}"
    "{{ '<|end|>' }}"
    "{% endfor %}"
    "{{ '<|assistant|>' if add_generation_prompt else '<|endoftext|>' }}"
)
"""What `phi4.processing.chat` renders, for text turns; tool definitions stand in the system turn as a string.

Source: spec 02, "Chat template"; the turn of a tool is spelt as the renderer spells it.
"""
