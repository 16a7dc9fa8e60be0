"""Vision-language models of transformers, from this machine: questions about an image."""

from collections.abc import Callable

from PIL import Image

AskImage = Callable[[Image.Image, str, int], str]
"""(image, question, most tokens) -> answer, by greedy decoding."""


def load_vision_language(model: str, device: str = "cpu") -> AskImage:
    """Load a vision-language model with a chat template.

    Args:
        model: hub id or folder; nothing is downloaded.
        device: torch's name.

    Raises:
        OSError: the model is not on this machine, or only as pickles.
        ValueError: the model is of another kind.
    """
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(model, local_files_only=True)
    network = AutoModelForImageTextToText.from_pretrained(model, local_files_only=True, use_safetensors=True)
    network.eval().to(device)

    def ask(image: Image.Image, question: str, max_tokens: int) -> str:
        content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(device)
        with torch.inference_mode():
            tokens = network.generate(**inputs, max_new_tokens=max_tokens, do_sample=False, num_beams=1)
        answer = tokens[0, inputs["input_ids"].shape[1] :]
        return str(processor.decode(answer, skip_special_tokens=True))

    return ask
