"""Augmented versions of images that are made once, in a script."""

from __future__ import annotations

from raytl.core.seeding import derive_seed
from raytl.finetuning import augmentation
from raytl.finetuning.policy import Policy
from raytl.runs.recipe.lifting import Lifted

VIEWS = '''\
@torch.no_grad()
def views(images: Tensor, augmented: Callable, seeds: list[int], rows: list[int], count: int) -> Iterator[Tensor]:
    """Augmented versions of the images, uint8, one for each seed.

    They are rows of a collection of ``count`` images, for all of which random numbers are drawn.
    """
    whole = torch.zeros(count, *images.shape[1:], dtype=torch.uint8)
    whole[rows] = images
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        parts = [augmented(batch.to(device) / 255, generator) for batch in whole.split(VIEW_BATCH)]
        yield (torch.cat(parts)[rows] * 255).round().to(torch.uint8)'''


def policy_code(lifted: Lifted, function: str, name: str) -> str:
    """A line that gives a function the name of an augmentation policy."""
    policy = augmentation.get(name)
    assert isinstance(policy, Policy)
    default = Policy()
    given = {key: value for key, value in vars(policy).items() if value != getattr(default, key)}
    return f"{function} = {lifted.add(Policy)}({', '.join(f'{key}={value!r}' for key, value in given.items())})"


def view_seeds(policy: str, views: int) -> list[int]:
    """What the views of any collection are drawn from."""
    return [derive_seed("view", f"{policy}/{number}") for number in range(views)]
