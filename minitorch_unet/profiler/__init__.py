"""What ran, where, and how long it took: `with profile() as p: loss = ...; loss.backward()`, then `p.table()`."""

from .call import Call
from .recording import profile

__all__ = ["Call", "profile"]
