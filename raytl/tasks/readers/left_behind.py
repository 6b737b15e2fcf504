"""What operating systems and tools leave behind among files, by its name."""

from __future__ import annotations

# Nobody means these as data, whatever is in them.
_LITTER = frozenset(
    {
        *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "#recycle", "@recycle", "$recycle.bin"),
        *("recycler", "system volume information", "lost+found", "found.000", "__pycache__", "node_modules"),
        "raytl-runs",
    }
)


def is_visible(name: str) -> bool:
    """Whether a file or folder of this name is meant as data."""
    if name.endswith(".icloud"):
        return True  # stands for an image that was not downloaded, which must not vanish
    return not name.startswith(".") and name.lower() not in _LITTER
