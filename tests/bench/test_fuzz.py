"""A short run of the fuzzer, and that it tells a decoder which breaks its promise."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from bench.fuzz import fuzz, run
from bench.fuzz_targets import Target, targets

EVERYWHERE = {target.name: target for target in targets()}


def test_no_decoder_breaks_down():
    """All inputs are taken or refused, and of every decoder some are of either kind."""
    found = run(20_000, seed=3)
    assert [] == [(name, tally.failed) for name, tally in found.items() if tally.failed]
    assert all(tally.taken and tally.refused for tally in found.values())


@given(st.sampled_from(sorted(EVERYWHERE)), st.binary(max_size=300))
def test_any_bytes_are_taken_or_refused(name, data):
    """Not only those that begin as ours do."""
    target = EVERYWHERE[name]
    with contextlib.suppress(target.refusals):
        target.read([data])


def test_every_example_is_taken():
    """What is mutated is valid to begin with."""
    for target in EVERYWHERE.values():
        whole = [data for data in target.examples if data != b"{"]
        taken = target.read(whole)
        assert (target.name, len(whole)) == (target.name, taken)


def test_a_fault_is_told_with_the_bytes():
    """An error that is not documented counts as a failure."""

    def read(batch):
        if any(b"!" in data for data in batch):
            raise KeyError("!")
        return len(batch)

    tally = fuzz(Target(name="odd", examples=[b"a!b", b"ab"], read=read), 200, seed=1)
    assert tally.failed
    assert tally.taken
    assert {"KeyError: '!'"} == {told for _, told in tally.failed}
    assert all(b"!" in data for data, _ in tally.failed)
