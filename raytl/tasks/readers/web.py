"""Files at http and https addresses, by fsspec."""

from __future__ import annotations

import io
from dataclasses import dataclass

TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Web:
    """What the readers need of a filesystem, for addresses; ``WEB`` is the only one."""

    def open_input_file(self, address: str) -> io.BytesIO:
        """The content at an address. Raises FileNotFoundError where there is none, OSError where it cannot be had."""
        import aiohttp
        import fsspec

        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            return io.BytesIO(fsspec.filesystem("http", client_kwargs={"timeout": timeout}).cat_file(address))
        except FileNotFoundError:
            raise
        except (OSError, ValueError, TimeoutError, aiohttp.ClientError) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise OSError(f"the web does not give it: {reason[0][:200]}") from None

    def __reduce__(self) -> str:
        return "WEB"


WEB = Web()


def is_web(text: str) -> bool:
    """Whether a text is an http or https address."""
    return text.lower().startswith(("http://", "https://"))
