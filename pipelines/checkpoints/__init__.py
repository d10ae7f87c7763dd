"""Public checkpoints brought in: a reader of files that runs nothing in them, and a layout's names and shapes each."""
