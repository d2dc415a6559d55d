"""`python -m tests.world SEEN`: two hosts that stand there until the program is ended.

Writes to the file SEEN, whole, what one sees of the other: a line per fact.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.drills import hosts


def main(argv: list[str]) -> int:
    if len(argv) == 2:
        inside(Path(argv[0]), Path(argv[1]))
        return 0
    with hosts.folder() as folder:
        return hosts.in_a_world("tests.world", [*argv, str(folder)], folder)


def inside(seen: Path, folder: Path) -> None:
    hosts.settle(folder, [seen.parent])
    one, two = hosts.start(folder, ["one", "two"], [], {"COLOUR": "blue"})

    def on(host: hosts.Host, command: str) -> str:
        words = [*hosts.ssh(folder / "key", host), command]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        return done.stdout.strip() or f"exit code {done.returncode}"

    on(one, "echo one > /tmp/mark; echo one > ~/mark; touch /dev/shm/mark")
    facts = [
        on(one, "echo $(hostname) $COLOUR $HOME $(cat /tmp/mark ~/mark)"),
        on(two, "echo $(hostname) $COLOUR $HOME $(cat /tmp/mark ~/mark)"),
        on(two, "ls /dev/shm | wc -l"),
        on(one, "sleep 100 > /dev/null 2>&1 & echo started"),
        str([len(host.processes()) for host in (one, two)]),
    ]
    two.cut()
    facts.append(f"two answers: {hosts.answers(two)}")
    two.bring_back()
    hosts.wait_until(lambda: hosts.answers(two), 10, "two is back")
    facts.append("two is back")
    written = seen.with_suffix(".part")
    written.write_text("\n".join([*facts, ""]))
    written.replace(seen)
    time.sleep(1000)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
