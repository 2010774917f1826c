"""Lock of a run folder: one attempt at a time writes into it, and one that has lost it notices."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from research.cluster import slurm
from research.common.errors import InUse, UserError
from research.common.locks import try_lock

log = logging.getLogger("research")
LOOKS, LOOK_SECONDS = 30, 0.5  # a file server may show a new file late


class FolderLock:
    """The file `.lock` of a folder, locked while its holder lives; it says who that is."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / ".lock"
        self.holder: str | None = None  # this process, as the file has it
        self._file: IO[str] | None = None

    def take(self) -> None:
        """Lock the folder. Raises InUse where another process has it, but for an attempt that SLURM has lost."""
        self._file = open(self.path, "a+", encoding="utf-8")  # noqa: SIM115 - held while the run lives
        if not try_lock(self._file):
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            if not slurm.is_superseded(holder):
                raise InUse(f"The run folder {self.folder} is in use by {holder}; wait for it or stop it.")
            log.warning(
                "The run folder %s was held by %s. SLURM has lost that attempt; if it still runs, it ends by itself.",
                self.folder, holder,
            )  # fmt: skip
            self._file.close()
            self.path.unlink(missing_ok=True)  # its holder finds another name there, and leaves
            self.take()
            return
        self.holder = f"{slurm.holder()}, since {time.strftime('%F %T')}"
        self._file.truncate(0)
        self._file.write(self.holder)
        self._file.flush()

    def refuse_if_taken_over(self) -> None:
        """Raise InUse when another attempt has this folder: an orphan on a lost node must not write into it."""
        if self.holder is not None and (by := self.held_by()) != self.holder:
            by = by or "no process: its lock file is missing"
            raise InUse(f"The run folder {self.folder} is no longer this process's own but held by {by}.")

    def refuse_another_folder(self, holder: str | None) -> None:
        """Raise UserError unless this rank sees the folder that rank 0 holds."""
        for _ in range(LOOKS):
            if self.held_by() == holder:
                return
            time.sleep(LOOK_SECONDS)
        raise UserError(
            f"On {slurm.node_name()} the run folder {self.folder} is not the one that rank 0 sees; set run_dir to a "
            "folder on a file system that all nodes share."
        )

    def held_by(self) -> str | None:
        """What the file says of its holder now; None where it is gone."""
        try:  # opened again each time: over NFS nothing else is sure to be fresh
            return self.path.read_text(encoding="utf-8")
        except OSError:
            return None

    def release(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        self._file = None
