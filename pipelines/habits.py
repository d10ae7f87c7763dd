"""What people bring along from diffusers and transformers, and what it is called here."""

from collections.abc import Iterable

_SIZE = "pictures have the model's own size, pipeline.dvae.config.image_size: leave it out, and resize output.images"

OF_A_CALL = {
    "generator": "pass seed=generator.initial_seed(): a picture depends on its prompt and its seed alone",
    "height": _SIZE,
    "width": _SIZE,
    "num_inference_steps": "leave it out: a picture takes a step for each of its codes",
    "callback_on_step_end": "pass callback=…, which is called as callback(i, codes) after each code",
    "image": "call vary(image, prompt), complete(prompt, image) or inpaint(prompt, image, mask)",
    "mask_image": "call inpaint(prompt, image, mask=…)",
}
OF_LOADING = {
    "device_map": "call from_pretrained(…).to('cuda')",
    "use_safetensors": "leave it out: nothing else is ever loaded",
    "variant": "pass dtype=torch.float16, which the weights are turned into",
}


def check_names(given: Iterable[str], known: Iterable[str], habits: dict[str, str]) -> None:
    """Raises TypeError for a name that is not known: with what to do instead, or else with the known ones."""
    if unknown := set(given) - set(known):
        name = min(unknown)
        remedy = habits.get(name, f"pass some of {', '.join(known)}")
        raise TypeError(f"{name} is no argument here; {remedy}")
