"""What every section of `rag.yaml` is made of."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

MIB = 1024 * 1024


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def _http_address(value: str) -> str:
    """Check an address: without the scheme, `host:port` would be taken for a scheme and a path.

    A login in it would be shown wherever the address is: in messages, logs and `rag config show`.
    """
    if not re.match(r"https?://[^/]", value):
        raise ValueError("an address with its scheme, such as http://127.0.0.1:19530")
    if re.match(r"https?://[^/]*@", value):
        raise ValueError("an address without user and password; secrets have variables of their own (RAG_INDEX__TOKEN)")
    return value


HttpAddress = Annotated[str, AfterValidator(_http_address)]
