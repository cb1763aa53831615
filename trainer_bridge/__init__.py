"""From a plan to training steps: the stream of packed sequences, its traces, and the bundled trainer (`moe/`)."""
