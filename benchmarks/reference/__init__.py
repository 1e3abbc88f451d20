"""The usual way to write a distillation loop, which `kdrun benchmark` measures against."""
