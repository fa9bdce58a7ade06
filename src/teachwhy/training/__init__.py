"""Training: settings, and supervised fine-tuning with LoRA."""
