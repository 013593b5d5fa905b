"""Sizes of the conformer speech encoder, and how many positions a recording takes in a prompt.

Field names are those of the HF-native layout where it has one; the original layout's stand in brackets.
The processor asks `num_tokens`, the network everything else. Left out on purpose: how sound becomes
log-mel frames (`phi4.processing.mel`), and switches this architecture fixes (`spelling.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from phi4.configs.fields import MAX_LAYERS, divides, number, refuse, whole


@dataclass(frozen=True)
class SpeechConfig:
    """Shape of the speech encoder; 10 ms log-mel frames go in, one vector per `time_reduction` frames out.

    Attributes:
        hidden_size: Width of the blocks (released as attention_dim).
        num_attention_heads: Heads (attention_heads); divides `hidden_size`.
        intermediate_size: Inner width of the two half feed-forwards (linear_units).
        num_blocks: Conformer blocks.
        nemo_conv_channels: Channels of the subsampling convolutions (conv_channels).
        depthwise_separable_out_channel: Output of the depthwise-separable convolution; equals `hidden_size`.
        ext_pw_out_channel: Output of the pointwise convolutions; equals `hidden_size`.
        input_size: Mel channels.
        kernel_size: Of the causal depthwise convolution, in positions.
        bias_max_distance: Relative attention bias is clipped to [-this, this - 1].
        time_reduction: Frames per output position; the three strided convolutions make it 8.
        max_window_tokens: Longer audio is cut into independent windows of this many positions.
        max_segment_s: Longest part, in seconds, when a long recording is cut to be heard in parts: as long
            as the training's clips (a key of ours; the released model had clips up to 30 s).

    Raises:
        InvalidConfig: A value cannot work.
    """

    hidden_size: int
    num_attention_heads: int
    intermediate_size: int
    num_blocks: int
    nemo_conv_channels: int
    depthwise_separable_out_channel: int
    ext_pw_out_channel: int
    input_size: int = 80
    kernel_size: int = 3
    bias_max_distance: int = 500
    time_reduction: int = 8
    max_window_tokens: int = 500
    max_segment_s: float = 30.0

    def __post_init__(self) -> None:
        for field in ("hidden_size", "num_attention_heads", "intermediate_size", "nemo_conv_channels"):
            whole(field, getattr(self, field))
        whole("num_blocks", self.num_blocks, high=MAX_LAYERS)
        divides("num_attention_heads", self.num_attention_heads, "hidden_size", self.hidden_size)
        for field in ("depthwise_separable_out_channel", "ext_pw_out_channel"):
            if whole(field, getattr(self, field)) != self.hidden_size:
                refuse(field, getattr(self, field), f"equal to the encoder's hidden size {self.hidden_size}")
        whole("input_size", self.input_size, high=1024)
        whole("kernel_size", self.kernel_size, high=1024)
        whole("bias_max_distance", self.bias_max_distance)
        if self.time_reduction != 8:
            refuse("time_reduction", self.time_reduction, "8")
        whole("max_window_tokens", self.max_window_tokens)
        number("max_segment_s", self.max_segment_s, 1.0, 40.0)

    @property
    def subsampled_mels(self) -> int:
        """Mel channels left after three halvings, rounded up: 80 -> 40 -> 20 -> 10."""
        return -(-self.input_size // self.time_reduction)

    def num_tokens(self, num_frames: int) -> int:
        """Positions a recording of `num_frames` (10 ms each) takes in the prompt: ceil(frames / 8)."""
        return -(-num_frames // self.time_reduction)
