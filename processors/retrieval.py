"""What the bot knows about a question: from a folder of Markdown, or from a service.

Both are `Retriever`s, and may stand in a `Parallel` as they are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loguru import logger

from ..pipeline.errors import ConfigurationError, StoreError
from ..pipeline.frames import SpeculativeTurnFrame, UserTurnFrame
from ..pipeline.services import Passage, RetrievalResult
from .embedded.http_client import HttpClient, service_url
from .embedded.retrieval.markdown import load_synonyms, split_markdown, synonym_key
from .embedded.retrieval.stop_words import FUNCTION_WORDS, normalised

RETRIEVAL_URL = "http://rag-service:8003"
MAX_WORDS = 32  # of a question; later ones are ignored
MAX_FILE = 1024 * 1024  # bytes; a larger file is no folder of passages' business
_SCHEMA = 1  # grows when the tables or the way of splitting change; an index of another number is built anew
_CREATE = f"""
DROP TABLE IF EXISTS leibniz_passages; DROP TABLE IF EXISTS leibniz_files;
CREATE TABLE leibniz_files (id INTEGER PRIMARY KEY, path TEXT UNIQUE, mtime_ns INTEGER, size INTEGER);
CREATE VIRTUAL TABLE leibniz_passages USING fts5(
  title, text, file UNINDEXED, tokenize = "porter unicode61 remove_diacritics 2"
);
PRAGMA user_version = {_SCHEMA};
"""
# A title says what a passage is about, so a word in it counts twice: bm25(table, weight of title, of text, of file).
_FIND = """
SELECT p.rowid, p.title, p.text, -bm25(leibniz_passages, 2.0, 1.0, 0.0) AS score, f.path
FROM leibniz_passages p JOIN leibniz_files f ON f.id = p.file
WHERE leibniz_passages MATCH ? ORDER BY score DESC, p.rowid LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What `SqliteRetriever.refresh` did, in files."""

    added: int = 0
    changed: int = 0
    removed: int = 0


class SqliteRetriever:
    """Finds passages by their words: SQLite FTS5, BM25, Porter stemming, and a file of synonyms.

    A passage is a section of a Markdown file in `folder` or below; `context` is the best one's text, without its
    heading. Function words ("how", "the") find nothing, and a passage counts only if it has at least `min_coverage`
    (0 to 1) of the question's other words, so that most questions about something else find nothing.

    `database` is a file to keep the index in, or ":memory:". The folder is indexed here and by `refresh`, which reads
    only files with a new time or size. A query takes 0.2 ms and is answered inline, so an interruption finds nothing
    to cancel. One object serves all conversations of a process. Raises `ConfigurationError` for a missing folder, a
    bad synonym file or setting, and `StoreError` if the database cannot be used.
    """

    has_side_effects = False  # so it may be asked about a guess

    def __init__(
        self,
        *,
        folder: str | Path,
        synonyms: str | Path | None = None,
        database: str | Path = ":memory:",
        top: int = 3,
        min_coverage: float = 0.6,
    ) -> None:
        if top < 1 or not 0.0 <= min_coverage <= 1.0:
            raise ConfigurationError(f"top is {top} (1 or more) and min_coverage {min_coverage} (0 to 1)")
        self._folder = Path(folder)
        self._top = top
        self._min_coverage = min_coverage
        self._synonyms = load_synonyms(Path(synonyms)) if synonyms is not None else {}  # `synonym_key` -> its group
        self._longest = max((len(key.split()) for key in self._synonyms), default=1)  # words in the longest key
        self._database = _connect(database)
        self.refresh()

    async def __call__(self, turn: UserTurnFrame | SpeculativeTurnFrame) -> RetrievalResult:
        return await self.retrieve(turn.text)

    async def retrieve(self, text: str) -> RetrievalResult:
        """The best passages for `text`; empty when nothing fits. Never suspends, never raises."""
        groups = self._groups(text)
        if not groups:
            return RetrievalResult()
        try:
            rows = self._database.execute(_FIND, (" OR ".join(groups), self._top)).fetchall()
            covered = [row for row in rows if self._coverage(row[0], groups) >= self._min_coverage]
        except sqlite3.Error as error:
            logger.warning(f"the passages of {self._folder} could not be searched: {error}")
            return RetrievalResult()
        results = [Passage(title, body, round(score, 4), path) for _, title, body, score, path in covered]
        return RetrievalResult(results, results[0].text if results else "")

    def refresh(self) -> Refreshed:
        """Bring the index up to date with the folder. Blocks; 10 ms for 20 new files, 0.3 ms for none.

        Raises `ConfigurationError` if the folder is gone or a file is not UTF-8 text; the index is then as before.
        """
        stamps = self._stamps()
        try:
            with self._database:
                known = {
                    name: (mtime_ns, size)
                    for name, mtime_ns, size in self._database.execute("SELECT path, mtime_ns, size FROM leibniz_files")
                }
                stale = [name for name in known if stamps.get(name) != known[name]]
                self._forget(stale)
                fresh = [name for name in stamps if stamps[name] != known.get(name)]
                for name in fresh:
                    self._index(name, stamps[name])
        except sqlite3.Error as error:
            raise StoreError(f"the index of {self._folder} cannot be written: {error}") from error
        changed = sum(name in known for name in fresh)
        return Refreshed(added=len(fresh) - changed, changed=changed, removed=len(stale) - changed)

    def close(self) -> None:
        """Close the database. Questions after it find nothing."""
        self._database.close()

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            (file,) = self._database.execute("SELECT id FROM leibniz_files WHERE path = ?", (name,)).fetchone()
            self._database.execute("DELETE FROM leibniz_passages WHERE file = ?", (file,))
            self._database.execute("DELETE FROM leibniz_files WHERE id = ?", (file,))

    def _stamps(self) -> dict[str, tuple[int, int]]:
        """Name -> (time of the last change in ns, size in bytes) of each file in the folder now."""
        if not self._folder.is_dir():
            raise ConfigurationError(f"{self._folder}: no such folder; make it, with a Markdown file per topic in it")
        stamps = {}
        for path in sorted(self._folder.rglob("*.md")):
            with suppress(FileNotFoundError):  # an editor has just moved it away
                stat = path.stat()
                stamps[path.relative_to(self._folder).as_posix()] = (stat.st_mtime_ns, stat.st_size)
        return stamps

    def _index(self, name: str, stamp: tuple[int, int]) -> None:
        path = self._folder / name
        if stamp[1] > MAX_FILE:
            raise ConfigurationError(f"{path}: {stamp[1]} bytes; split it into files below {MAX_FILE} bytes")
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path}: cannot be read as UTF-8 text ({error})") from error
        title = path.stem.replace("-", " ").replace("_", " ")
        file = self._database.execute(
            "INSERT INTO leibniz_files (path, mtime_ns, size) VALUES (?, ?, ?)", (name, *stamp)
        ).lastrowid
        rows = [(head, body, file) for head, body in split_markdown(text, title=title)]
        self._database.executemany("INSERT INTO leibniz_passages (title, text, file) VALUES (?, ?, ?)", rows)

    def _groups(self, text: str) -> list[str]:
        """One FTS5 expression per thing the text asks about: the word, or words, and all synonyms.

        Only quoted words are put into the expression, so no text can be an operator or a syntax error.
        """
        words = normalised(text).split()[:MAX_WORDS]
        groups: dict[str, None] = {}  # ordered, each once
        while words:
            size, members = self._first(words)
            if members:
                groups["(" + " OR ".join(f'"{member}"' for member in members) + ")"] = None
            words = words[size:]
        return list(groups)

    def _first(self, words: list[str]) -> tuple[int, tuple[str, ...]]:
        """How many words the longest synonym at the front takes, and its group; else 1, and the word if it counts."""
        for size in range(min(self._longest, len(words)), 0, -1):
            members = self._synonyms.get(synonym_key(words[:size]))
            if members is not None:
                return size, members
        return 1, () if words[0] in FUNCTION_WORDS else (words[0],)

    def _coverage(self, row: int, groups: list[str]) -> float:
        query = "SELECT 1 FROM leibniz_passages WHERE rowid = ? AND leibniz_passages MATCH ?"
        return sum(self._database.execute(query, (row, group)).fetchone() is not None for group in groups) / len(groups)


class HttpRetriever:
    """A retrieval service: `POST {base_url}/api/v1/query {"query": ...}` -> `{"results": [...], "context": str}`.

    Any failure, or `timeout_s` for the whole call, answers no results and an empty context. All share the loop's
    pooled client and its circuit breaker unless `client` is given. Cancelling closes the connection. Raises
    `ConfigurationError` for a bad address or timeout.
    """

    has_side_effects = False  # so it may be asked about a guess

    def __init__(
        self, *, base_url: str = RETRIEVAL_URL, timeout_s: float = 5.0, client: HttpClient | None = None
    ) -> None:
        if not timeout_s > 0:
            raise ConfigurationError(f"timeout_s is {timeout_s}; give the service a time above 0 seconds")
        self.url = service_url(base_url, "/api/v1/query")
        self._timeout_s = timeout_s
        self._client = client  # None: the running loop's shared one

    async def __call__(self, turn: UserTurnFrame | SpeculativeTurnFrame) -> RetrievalResult:
        return await self.retrieve(turn.text)

    async def retrieve(self, text: str) -> RetrievalResult:
        """The service's answer, or the fallback. Never raises but for cancellation."""
        client = self._client or HttpClient.shared()
        answer = await client.ask(self.url, {"query": text}, timeout_s=self._timeout_s, check=_checked)
        return answer or RetrievalResult()


def _connect(database: str | Path) -> sqlite3.Connection:
    """Open the index. Calls from several threads are safe: SQLite is built serialised."""
    try:
        connection = sqlite3.connect(database, timeout=1.0, check_same_thread=False)
        (schema,) = connection.execute("PRAGMA user_version").fetchone()
        if schema != _SCHEMA:
            connection.executescript(_CREATE)
    except sqlite3.Error as error:
        raise StoreError(f"{database} cannot be used as an index ({error}); it is only a cache, delete it") from error
    return connection


def _checked(answer: Any) -> RetrievalResult | None:
    if not isinstance(answer, dict):
        return None
    results, context = answer.get("results"), answer.get("context")
    if not isinstance(results, list) or not isinstance(context, str):
        return None
    return RetrievalResult(results, context)
