"""What goes wrong while published weights are fetched from the Hugging Face hub."""

from __future__ import annotations

_OWN = ("HTTPError", "EntryNotFoundError", "RevisionResolutionError", "XetDownloadError")


def fetch_errors() -> tuple[type[Exception], ...]:
    """Kinds of errors that mean: could not be fetched. Refusals and connections that break off are among them.

    The client library below huggingface_hub is another one from release to release, and what it raises passes through:
    its base class is taken from where huggingface_hub itself has it. A proxy of the environment that the client does
    not know, or lacks a package for, is a ValueError or an ImportError.
    """
    from huggingface_hub import errors

    own = (getattr(errors, name, None) for name in _OWN)
    return (OSError, RuntimeError, ValueError, ImportError, *(kind for kind in own if kind is not None))
