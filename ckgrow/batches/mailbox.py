"""What one thread tells another, which an exception from a signal must not make it lose."""

from __future__ import annotations

import queue
from collections import deque
from typing import Generic, TypeVar

Message = TypeVar("Message")


class Mailbox(Generic[Message]):
    """Messages in order; each stays until whoever read it says that it was dealt with."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()

    def put(self, message: Message) -> None:
        """Adds a message."""
        self._messages.append(message)
        self._bell.put(None)

    def first(self, patience: float | None = None) -> Message:
        """The first message, once there is one; queue.Empty after so many seconds without."""
        while not self._messages:
            self._bell.get(timeout=patience)
        return self._messages[0]

    def drop(self) -> None:
        """The first message was dealt with."""
        self._messages.popleft()
