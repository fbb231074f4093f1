"""The long suite: `bash scripts/fault_suite.sh --help`."""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.faults.bench import Bench
from tests.faults.plants import PLANTS
from tests.faults.rows import Context, Row, Try, all_rows
from tests.faults.zygote import Zygote


@dataclass(frozen=True)
class Result:
    fault: str
    tried: int
    survived: int


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 where a promise is lost."""
    parser = argparse.ArgumentParser(
        prog="scripts/fault_suite.sh",
        description="Kills, damages and starves real training runs, and counts how many end as they should.",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the table to this file")
    parser.add_argument("--rows", default="", metavar="WORD", help="only rows whose name contains WORD")
    parser.add_argument("--plant", default="", choices=PLANTS, help="break one promise: it must be lost")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time (default 2)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the random times")
    args = parser.parse_args(argv)
    rows = [row for row in all_rows(random.Random(args.seed)) if args.rows in row.fault]
    if not rows:
        parser.error(f"no row contains {args.rows!r}")
    # A suite that runs under nohup would leave the rows of SIGHUP nothing to see.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        bench = Bench.made(Path(folder))
        bench.zygote = Zygote(Path(folder) / "zygote")
        context = Context(bench, args.plant)
        try:
            results = run(rows, context, args.jobs)
        finally:
            bench.zygote.close()
    if args.json:
        args.json.write_text(json.dumps({"rows": [asdict(result) for result in results]}, indent=1) + "\n")
    minutes = (time.monotonic() - started) / 60
    again = max(context.redone, default=0)
    print(f"{context.kills} kills, at most {again} steps done again; {minutes:.1f} min; --seed {args.seed}")
    return int(any(result.survived < result.tried for result in results))


def run(rows: Sequence[Row], context: Context, jobs: int) -> list[Result]:
    """Prints each row when its trials are done."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = [
            [pool.submit(_survives, row.fault, attempt, context) for attempt in row.tries] for row in rows
        ]
        results = [_result(row, own) for row, own in zip(rows, futures, strict=True)]
    lost = [result.fault for result in results if result.survived < result.tried]
    tried, survived = sum(r.tried for r in results), sum(r.survived for r in results)
    print(f"{survived} of {tried} survived" + (f"; lost: {', '.join(lost)}" if lost else ""))
    return results


def _result(row: Row, futures: Sequence[Future[bool]]) -> Result:
    result = Result(row.fault, len(futures), sum(future.result() for future in futures))
    mark = "" if result.survived == result.tried else "  LOST"
    print(f"{result.fault:55} {result.survived:3} of {result.tried:3}{mark}", flush=True)
    return result


def _survives(fault: str, attempt: Try, context: Context) -> bool:
    try:
        attempt(context)
    except Exception as error:  # whatever goes wrong in a trial, the promise is not kept
        print(f"{fault}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
