# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, binding=False
"""The commit path inside one process: handing messages over, and the claims that adjudicators remember.

See dsql_server.compiled.
"""

include "memory.pxi"


# -- messages between roles ------------------------------------------------------------------------------------

cdef class Mailbox:
    """See dsql_server.cluster.commit_path_mailbox.Mailbox."""

    cdef readonly object clock, random
    cdef object loop, on_defect, answer, deaf
    cdef dict receivers
    cdef list queue  #: handler, sender, message; from ``first`` on
    cdef Py_ssize_t first
    cdef bint delivering

    def __init__(self, loop, clock, on_defect, random, type answer not None, deaf):
        """``answer``: the messages that come first; ``deaf`` makes the handlers of an actor after a defect."""
        self.loop = loop
        self.clock = clock
        self.on_defect = on_defect
        self.random = random
        self.answer = answer
        self.deaf = deaf
        self.receivers = {}
        self.queue = []
        self.first = 0
        self.delivering = False

    def add(self, actor):
        address = actor.address
        assert address not in self.receivers, f"two actors at {address}"
        self.receivers[address] = actor.handlers

    def send(self, sender, receiver, message):
        kind = type(message)
        item = (self.receivers[receiver][kind], sender, message)
        if kind is not self.answer:
            self.queue.append(item)
        elif self.first:
            self.first -= 1
            self.queue[self.first] = item
        else:
            self.queue.insert(0, item)
        if not self.delivering:
            self.deliver()

    def call_later(self, delay_s, callback):
        return self.loop.call_later(delay_s, callback)

    def gathered(self, callback):
        return Gathered(self, callback)

    def catch_up(self):
        self.deliver()

    cdef int deliver(self) except -1:
        cdef bint outer = self.delivering
        cdef tuple item
        self.delivering = True
        try:
            while self.first < len(self.queue):
                item = self.queue[self.first]
                self.queue[self.first] = None
                self.first += 1
                if self.first == len(self.queue):
                    self.queue.clear()
                    self.first = 0
                item[0](item[1], item[2])
        except BaseException as error:
            self.queue.clear()
            self.first = 0
            self.receivers = {address: self.deaf() for address in self.receivers}
            self.on_defect(error)
            if not isinstance(error, Exception):
                raise
        finally:
            self.delivering = outer
        return 0


cdef class Gathered:
    """See Mailbox.gathered."""

    cdef Mailbox mailbox
    cdef object callback

    def __init__(self, Mailbox mailbox not None, callback):
        self.mailbox = mailbox
        self.callback = callback

    def __call__(self, argument):
        cdef Mailbox mailbox = self.mailbox
        cdef bint outer = mailbox.delivering
        mailbox.delivering = True
        try:
            self.callback(argument)
        finally:
            mailbox.delivering = outer
        if not outer:
            mailbox.deliver()


# -- claims ----------------------------------------------------------------------------------------------------

def conflict(claims, t_start, dict updates not None, dict no_key_updates not None, dict key_shares not None):
    """See dsql_server.adjudicator.recent_claims.RecentClaims.conflict."""
    cdef int mode
    for claim in claims:
        key = claim[0]
        mode = claim[1]
        found = updates.get(key)
        if found is not None and found > t_start:
            return key
        if mode == 1:
            continue
        found = no_key_updates.get(key)
        if found is not None and found > t_start:
            return key
        if mode == 3:
            found = key_shares.get(key)
            if found is not None and found > t_start:
                return key
    return None


def record(claims, t_commit, dict updates not None, dict no_key_updates not None, dict key_shares not None):
    """See dsql_server.adjudicator.recent_claims.RecentClaims.record: remembers the claims, and returns their keys."""
    cdef int mode
    cdef list keys = []
    cdef dict table
    for claim in claims:
        key = claim[0]
        mode = claim[1]
        table = updates if mode == 3 else no_key_updates if mode == 2 else key_shares
        found = table.get(key)
        if found is None or found < t_commit:
            table[key] = t_commit
        keys.append(key)
    return tuple(keys)
