"""Feeds every decoder with bytes that are almost right, or not at all: python -m bench.fuzz.

    python -m bench.fuzz --inputs 10000000 --seed 1

Each input is either taken or refused with the error that the decoder documents. Anything else is
printed with the bytes, and the exit code is 1. A hang ends the process, and shows where it hung.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.fuzz_targets import Target, targets

HANG_SECONDS = 60
"""How long a decoder may take over a batch."""
BATCH = 500
"""Inputs that a decoder is given at a time."""
_LONGEST = 1 << 14
_TELLING = [
    *(b"0", b"-1", b"1e999", b"NaN", b"null", b"true", b'""', b"[]", b"{}", b"9" * 30, b"\\ud800"),
    *(
        b"\0",
        b"\xff",
        b"\xc3\x28",
        b"\xed\xa0\x80",
        b"[" * 2000,
        b'{"a":' * 2000,
        b'"',
        b"\\",
        b",",
    ),
    *(b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\xcf" + b"\xff" * 8, b"\xd3\x80" + b"\0" * 7),
    *(b"\xdd\xff\xff\xff\xff", b"9223372036854775808", b"-9223372036854775809", b"1e308", b"\n"),
]
"""What decoders have stumbled over elsewhere."""


@dataclass(slots=True)
class Tally:
    """What became of the inputs of a decoder."""

    taken: int = 0
    refused: int = 0
    failed: list[tuple[bytes, str]] = field(default_factory=list)


def mutated(chance: random.Random, examples: Sequence[bytes]) -> bytes:
    """Return bytes made from an example by a few small changes, or any bytes."""
    if chance.random() < 0.05:  # noqa: PLR2004
        return chance.randbytes(chance.randrange(200))
    data = bytearray(chance.choice(examples))
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        at = chance.randrange(len(data) + 1)
        until = min(len(data), at + int(chance.expovariate(0.1)))
        match chance.randrange(7):
            case 0:
                data[at:at] = chance.choice(_TELLING)
            case 1:
                data[at:until] = chance.choice(_TELLING)
            case 2:
                del data[at:until]
            case 3:
                data[at:at] = data[at:until]
            case 4:
                del data[at:]
            case 5:
                other = chance.choice(examples)
                data[at:] = other[chance.randrange(len(other) + 1) :]
            case 6 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
    return bytes(data[:_LONGEST])


def fuzz(target: Target, inputs: int, seed: int) -> Tally:
    """Give a decoder so many inputs; the seed decides which."""
    chance = random.Random(f"{seed}/{target.name}")  # noqa: S311  no secret
    tally = Tally()
    while inputs > 0:
        batch = [mutated(chance, target.examples) for _ in range(min(BATCH, inputs))]
        inputs -= len(batch)
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        if target.takes_batches:
            _count(target, batch, tally)
        else:
            for data in batch:
                _count(target, [data], tally)
    faulthandler.cancel_dump_traceback_later()
    return tally


def _count(target: Target, batch: list[bytes], tally: Tally) -> None:
    try:
        taken = target.read(batch)
    except target.refusals:
        tally.refused += len(batch)
    except Exception as error:  # noqa: BLE001  that is what is looked for
        told = f"{type(error).__name__}: {error}"
        tally.failed.append((batch[0] if len(batch) == 1 else _culprit(target, batch), told))
    else:
        tally.taken += taken
        tally.refused += len(batch) - taken


def _culprit(target: Target, batch: list[bytes]) -> bytes:
    """Return the input of a batch that fails alone, if there is one."""
    for data in batch:
        try:
            target.read([data])
        except Exception:  # noqa: BLE001
            return data
    return b"".join(batch)


def run(inputs: int, seed: int, tell: Callable[[str], None] = lambda _: None) -> dict[str, Tally]:
    """Share inputs out among all decoders by their weight, and return what became of them."""
    everywhere = targets()
    whole = sum(target.weight for target in everywhere)
    found = {}
    for target in everywhere:
        began = time.monotonic()
        tally = fuzz(target, round(inputs * target.weight / whole), seed)
        found[target.name] = tally
        tell(
            f"{target.name:28} {tally.taken:10,} taken {tally.refused:10,} refused "
            f"{len(tally.failed):4,} failed {time.monotonic() - began:6.0f} s"
        )
        for told, times in Counter(told for _, told in tally.failed).most_common(5):
            data = next(data for data, text in tally.failed if text == told)
            tell(f"  FAILED {times} times: {told}, such as on {data[:300]!r}")
    return found


def main() -> int:
    """Run it, print what came out, and return the exit code."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    found = run(options.inputs, options.seed, tell=lambda text: print(text, flush=True))
    taken = sum(tally.taken for tally in found.values())
    refused = sum(tally.refused for tally in found.values())
    failed = sum(len(tally.failed) for tally in found.values())
    whole = taken + refused + failed
    print(f"{whole:,} inputs: {taken:,} taken, {refused:,} refused, {failed:,} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
