"""What a run will take, from its settings and the model's shape: memory, time, and a way to fit."""
