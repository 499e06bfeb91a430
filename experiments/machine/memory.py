"""Whether the networks that a run asks for can fit into this machine's memory, before any of them is made."""

import os
from typing import Any

from lightning_modules.errors import InputError

COPIES = 4  # of each weight in training: itself, its gradient, Adam's two averages
FLOAT_BYTES = 4


def check_memory(config: dict[str, Any], available_bytes: int | None = None) -> None:
    """Refuse networks whose weights alone, or latents, need more than the machine's memory.

    A rough estimate, and always too low: of the images' size only what the configuration says is known.

    Args:
        config: plain and checked.
        available_bytes: of memory; None: this machine's.

    Raises:
        InputError: names the part that needs most, with its settings.
    """
    available = physical_bytes() if available_bytes is None else available_bytes
    needed = {part: COPIES * FLOAT_BYTES * n for part, n in _weights(config).items()}
    needed["zdim"] = 4 * FLOAT_BYTES * (config["data"].get("n_particles") or 1) * config["zdim"]  # mu, logvar, noise
    if available is None or sum(needed.values()) <= available:
        return
    part = max(needed, key=lambda name: needed[name])
    settings = {"zdim": ("zdim",)}.get(part, (f"{part}.layers", f"{part}.width", "zdim"))
    shown = ", ".join(f"{key}={_at(config, key)}" for key in settings if _at(config, key) is not None)
    raise InputError(
        f"{shown}: about {sum(needed.values()) / 1e9:,.0f} GB of memory are needed and {available / 1e9:,.0f} GB were "
        "found; choose smaller ones"
    )


def physical_bytes() -> int | None:
    """Return the size of the machine's memory; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _weights(config: dict[str, Any]) -> dict[str, int]:
    """Count the weights of the networks, at least."""
    zdim, n_pixels = config["zdim"], (config["data"].get("box_px") or 0) ** 2 * 3 // 4
    encoder, decoder = config["latents"], config["decoder"]
    counts = {"decoder": _layers(decoder, zdim + 3 * (decoder.get("pe_dim") or 1), 2)}
    if "layers" in encoder:
        inputs = 2 * encoder["n_templates"] if "n_templates" in encoder else n_pixels
        templates = encoder.get("grid", 0) ** 3 * encoder.get("n_templates", 0)
        counts[_named_by_the_user(config)] = _layers(encoder, inputs, 2 * zdim) + templates
    return counts


def _named_by_the_user(config: dict[str, Any]) -> str:
    """Return the node in which a user sets the encoder's size: unless it was overridden, latents refers to encoder."""
    refers = all(config["encoder"][key] == config["latents"][key] for key in ("layers", "width"))
    return "encoder" if refers else "latents"


def _layers(network: dict[str, Any], n_inputs: int, n_outputs: int) -> int:
    layers, width = network["layers"], network["width"]
    return int((n_inputs + n_outputs) * width + layers * width**2)


def _at(config: dict[str, Any], key: str) -> Any:
    above, _, name = key.rpartition(".")
    return (config[above] if above else config).get(name)
