"""What someone else wrote: JSON, configurations of models, models and tokenizers, opened without trust."""
