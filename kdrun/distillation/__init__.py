"""A distillation run: teacher, baseline and student, from typed configuration to `result.json`."""
