"""The paper's claims, judged by finished runs: ``python -m experiments claims runs``."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.claims.paper_claims import judge
from experiments.claims.wording import in_words
from experiments.configuration.error_messages import command
from experiments.machine.terminal import purpose
from experiments.runs.folders import find
from lightning_modules.files.atomic import write_atomically


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Judge, print the table, write claims.json; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments claims", description=purpose(__doc__))
    parser.add_argument("runs", type=Path, nargs="*", default=[Path("runs")], help="folders of runs (default: runs)")
    parser.add_argument("-o", "--output", type=Path, help="default: claims.json in the first folder")
    options = parser.parse_args(arguments)
    verdicts = judge(find(options.runs))
    text = json.dumps([one.to_json() for one in verdicts], indent=2, allow_nan=False) + "\n"
    path = write_atomically(
        options.output or options.runs[0] / "claims.json", lambda path: path.write_text(text, encoding="utf-8")
    )
    for one in verdicts:
        print(f"{one.setting or 'no cryo-EM run'}\n")
        for judged in one.judged:
            print(f"{judged.claim.name:>4} {judged.verdict:<14} {judged.claim.statement}")
            for finding in judged.findings:
                print(f"{'':20}{finding.verdict}: {in_words(finding)}")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
