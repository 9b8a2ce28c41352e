"""Build the site: `python docs/site/build.py [FOLDER]`, by default build/site; open index.html there.

Warnings are errors. Afterwards every link within the site is followed, and nothing may be loaded from the network.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]

import links  # noqa: E402
import stage  # noqa: E402


def main() -> int:
    """Returns 0 if all went well."""
    site = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "site").resolve()
    pages, trees = ROOT / "build" / "site-pages", ROOT / "build" / "site-trees"
    sources = stage.stage(pages)
    shutil.rmtree(site, ignore_errors=True)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-E", "-c", str(HERE.parent)]
    done = subprocess.run([*command, "-d", str(trees), str(pages), str(site)], check=False)
    if done.returncode:
        return done.returncode
    sources.write(site)
    broken = links.check(site)
    print("\n".join(broken) or f"{site / 'index.html'}: all links lead somewhere, nothing comes from outside")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
