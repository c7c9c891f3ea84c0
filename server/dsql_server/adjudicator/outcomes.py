"""What became of every transaction, so that repeated requests and questions are answered the same way each time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Sequence
from typing import Any

from dsql_server.adjudicator.appender import Appender
from dsql_server.interfaces.environment import Environment
from dsql_server.interfaces.messages import (
    Committed,
    Inquire,
    LookedUp,
    LookUp,
    Release,
    Timestamp,
    Unavailable,
    Unknown,
)

#: How many outcomes are remembered.
OUTCOMES_MAX = 100_000
#: In place of T_commit: refused, and only the journal knows.
_REFUSED = 0
_UNKNOWN = -1


class Outcomes:
    """An adjudicator's memory of outcomes. Transactions of an owner before are looked up in the journal."""

    def __init__(
        self,
        me: str,
        adjudicators: Sequence[str],
        journal: str,
        environment: Environment,
        appender: Appender,
        undecided: Container[bytes],
        refuse: Callable[[str, Unavailable], None],
        inherited: bool,
    ) -> None:
        """``undecided``: transactions whose outcome is yet to come. ``inherited``: the journal had another owner."""
        self._me = me
        self._adjudicators = frozenset(adjudicators)
        self._journal = journal
        self._send = environment.send
        self._now = environment.clock.now
        self._appender = appender
        self._undecided = undecided
        self._refuse = refuse
        self._inherited = inherited
        self._t_commits: OrderedDict[bytes, Timestamp] = OrderedDict()
        #: Who asked for what is being looked up.
        self._looking_up: dict[bytes, str] = {}
        self.failure = ""
        self.handlers: dict[type, Any] = {Inquire: self._on_inquire, LookedUp: self._on_looked_up}

    def __contains__(self, transaction_id: bytes) -> bool:
        return transaction_id in self._t_commits

    def __len__(self) -> int:
        return len(self._t_commits)

    def remember(self, transaction_id: bytes, t_commit: Timestamp) -> None:
        """``t_commit`` is 0 for a refused transaction. The oldest outcomes are forgotten."""
        t_commits = self._t_commits
        t_commits[transaction_id] = t_commit
        if len(t_commits) > OUTCOMES_MAX:
            t_commits.popitem(last=False)

    def lost(self, transaction_id: bytes, client: str) -> None:
        """The journal failed while it had the transaction: nobody knows before it is recovered."""
        self._t_commits[transaction_id] = _UNKNOWN
        self._send(self._me, client, Unknown(transaction_id, self.failure))

    def release(self, transaction_id: bytes, voter: str) -> None:
        """Tell a voter what was decided, if it was decided here."""
        t_commit = self._t_commits.get(transaction_id)
        if t_commit is not None and t_commit != _UNKNOWN:
            self._send(self._me, voter, Release(transaction_id, t_commit))

    def answer(self, client: str, transaction_id: bytes) -> None:
        """Answer as before; what isn't decided or durable yet will be answered in time."""
        t_commit = self._t_commits.get(transaction_id)
        if t_commit == _REFUSED:
            self._send(self._me, client, Unavailable(transaction_id, "the transaction was refused before"))
        elif t_commit == _UNKNOWN:
            self._send(self._me, client, Unknown(transaction_id, self.failure))
        elif t_commit is not None:
            oldest = self._appender.oldest
            if (oldest is None or t_commit < oldest) and self._now()[0] > t_commit:
                self._send(self._me, client, Committed(transaction_id, t_commit))

    def look_up(self, asker: str, transaction_id: bytes) -> None:
        """Nothing of the owner before can get into the journal any more: what isn't there never will be."""
        self._looking_up[transaction_id] = asker
        self._send(self._me, self._journal, LookUp(transaction_id))

    def _on_inquire(self, sender: str, message: Inquire) -> None:
        transaction_id = message.transaction_id
        if transaction_id in self._t_commits:
            if sender in self._adjudicators:
                self.release(transaction_id, sender)
            else:
                self.answer(sender, transaction_id)
        elif transaction_id not in self._undecided:
            if self._inherited:
                self.look_up(sender, transaction_id)
            else:
                self._never_committed(sender, transaction_id)

    def _on_looked_up(self, sender: str, message: LookedUp) -> None:
        transaction_id, _, t_commit = message
        asker = self._looking_up.pop(transaction_id, None)
        if asker is None:
            return
        if t_commit:
            self.remember(transaction_id, t_commit)
            self._on_inquire(asker, Inquire(transaction_id))
        else:
            self._never_committed(asker, transaction_id)

    def _never_committed(self, asker: str, transaction_id: bytes) -> None:
        """The transaction is unknown: from now on it is refused, should its request still arrive."""
        if asker in self._adjudicators:
            self.remember(transaction_id, _REFUSED)
            self.release(transaction_id, asker)
        else:
            self._refuse(asker, Unavailable(transaction_id, "the request never arrived"))
