"""The review page: people look at what a LoRA is about to learn, reject pictures and mend captions."""
