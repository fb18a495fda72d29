"""A configuration between its file and its validated form: values with their places, and every problem found so far."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rag_core.config import EmbeddingConfig, RagConfig
from rag_core.config_checks import check_model, looks_like_path, path_problem, token_limit
from rag_core.config_env import kinds_of
from rag_core.config_keys import Path as KeyPath
from rag_core.config_keys import keys_of, section_of
from rag_core.config_problems import Problem, config_error, problems_of, shown
from rag_core.config_yaml import YamlDocument, YamlError, read_yaml
from rag_core.errors import ConfigError


@dataclass
class Draft:
    """A configuration on its way from file and environment to a valid one.

    Attributes:
        file: The file; None if all is from the environment.
        document: The values, changed in place on the way, and the lines of the file.
        env: The variable of each path that the environment set.
        written: Local paths as they were written, before they became absolute.
        problems: What is wrong, in the order found.
    """

    file: Path | None
    document: YamlDocument = field(default_factory=YamlDocument)
    env: dict[KeyPath, str] = field(default_factory=dict)
    written: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def data(self) -> dict[str, Any]:
        """The values."""
        return self.document.data

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return self.file.name if self.file else "environment"

    def read(self) -> None:
        """Read the file, if there is one.

        Raises:
            ConfigError: It is missing, unreadable, not YAML, or not a mapping.
        """
        if self.file is None:
            return
        try:
            self.document = read_yaml(self.file)
        except FileNotFoundError as error:
            raise ConfigError(f"no configuration file at {self.file}; give its path in RAG_CONFIG") from error
        except OSError as error:
            raise ConfigError(f"the configuration file {self.file} cannot be read: {error.strerror}") from error
        except YamlError as error:
            raise config_error(str(self.file), [Problem(f"{self.name}:{error.line}", "", str(error))]) from error
        for path, line, first in self.document.repeated:
            self.problems.append(
                Problem(f"{self.name}:{line}", self.dotted(path), f"key is there twice, first in line {first}")
            )
        for key in [key for key, value in self.data.items() if value is None and _is_section(key)]:
            del self.data[key]  # a section with nothing under it: all defaults

    def origin(self, path: KeyPath) -> str:
        """Return where a key comes from, or the nearest section above it that is there."""
        prefixes = [path[:length] for length in range(len(path), 0, -1)]
        for prefix in prefixes:  # a variable for a whole section replaces what the file says in it
            if prefix in self.env:
                return f"env {self.env[prefix]}"
        for prefix in prefixes:
            if prefix in self.document.lines:
                return f"{self.name}:{self.document.lines[prefix]}"
        return self.name

    def dotted(self, path: KeyPath) -> str:
        """Write a path with sources by name."""
        parts = list(path)
        if len(parts) > 1 and parts[0] == "sources":
            sources = self.data.get("sources")
            entry = sources[parts[1]] if isinstance(sources, list) and isinstance(parts[1], int) else None
            name = entry.get("name") if isinstance(entry, dict) else None
            parts[1] = name if isinstance(name, str) else parts[1]
        text = ""
        for part in parts:
            text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
        return text

    def report(self, path: KeyPath, expected: str, value: Any = None) -> None:
        """Note that the value of a key is wrong."""
        value = self.written.get(path, value)
        text = "" if value is None else shown(value)
        self.problems.append(Problem(self.origin(path), self.dotted(path), expected, text))

    def refuse_secrets(self) -> None:
        """Note and drop secrets that the file holds; call it before the environment is laid over."""
        for key in keys_of(RagConfig):
            section: Any = self.data
            for part in key.path[:-1]:
                section = section.get(part) if isinstance(section, dict) else None
            if key.is_secret and isinstance(section, dict) and section.pop(key.path[-1], None) is not None:
                self.report(key.path, f"is a secret and must not be in a file; set {key.env_name} instead")

    def _path_keys(self) -> Iterator[tuple[KeyPath, dict[str, Any], str]]:
        """Yield the keys that hold local paths, each with the section it is in and its text."""
        sources = self.data.get("sources")
        candidates: list[tuple[KeyPath, Any]] = [(("store", "root"), self.data.get("store"))]
        candidates.append((("backup", "to"), self.data.get("backup")))
        candidates += [(("embedding", key), self.data.get("embedding")) for key in ("tokenizer", "model")]
        embedding = self.data.get("embedding")
        kubernetes = embedding.get("kubernetes") if isinstance(embedding, dict) else None
        candidates.append((("embedding", "kubernetes", "kubeconfig"), kubernetes))
        entries = enumerate(sources) if isinstance(sources, list) else ()
        candidates += [(("sources", number, "root"), entry) for number, entry in entries]
        candidates.append((("quality", "tests"), self.data.get("quality")))
        serving = self.data.get("serving")
        access = serving.get("access") if isinstance(serving, dict) else None
        candidates.append((("serving", "access", "keys_file"), access))
        candidates += self._labelled_files()
        for path, section in candidates:
            value = section.get(path[-1]) if isinstance(section, dict) else None
            remote = isinstance(value, str) and "://" in value
            name = path[-1] == "model" and isinstance(value, str) and not self._is_model_folder(section, value)
            if isinstance(value, str) and not remote and not name:
                yield path, section, value

    def _labelled_files(self) -> Iterator[tuple[KeyPath, Any]]:
        evaluation = self.data.get("evaluation")
        labelled = evaluation.get("labelled") if isinstance(evaluation, dict) else None
        for number, entry in enumerate(labelled if isinstance(labelled, list) else ()):
            yield from ((("evaluation", "labelled", number, key), entry) for key in ("queries", "qrels"))

    def _is_model_folder(self, section: dict[str, Any], model: str) -> bool:
        return section.get("backend") != "openai" and looks_like_path(model)

    def make_paths_absolute(self) -> None:
        """Resolve paths of the file against its folder, and those of variables against the current one."""
        for path, section, value in self._path_keys():
            from_file = self.file is not None and not self.origin(path).startswith("env ")
            base = self.file.parent if self.file and from_file else Path.cwd()
            self.written[path] = value
            section[str(path[-1])] = os.path.abspath(base / Path(value).expanduser())  # noqa: PTH100 - drops `..`

    def check_paths(self) -> None:
        """Note the paths that are not there or are of the wrong kind."""
        kinds = kinds_of(self.data)
        for path, _, value in self._path_keys():
            place = Path(value)
            problem = None
            if path[0] == "sources" and path[1] in kinds:
                problem = path_problem(place, kind=kinds[int(path[1])])
            elif path[-1] == "tokenizer" and not place.is_file():
                problem = f"expected a tokenizer.json, there is no file at {place}"
            elif path[:2] in (("quality", "tests"), ("evaluation", "labelled")):
                problem = path_problem(place, kind="folder" if path[0] == "quality" else "file")
            elif path[0] == "store" and place.exists() and not place.is_dir():
                problem = f"expected a folder, {place} is a file"
            if problem:
                self.report(path, problem, value)

    def validate(self, *, check_files: bool) -> RagConfig:
        """Make the configuration, or raise everything that was found wrong until now and on the way."""
        config: RagConfig | None = None
        try:
            config = RagConfig.model_validate(self.data)
        except ValidationError as error:
            self.problems += problems_of(error, kinds_of(self.data), self.origin, self.dotted)
        if check_files:
            self._check_model(config)
        if self.problems or config is None:
            raise config_error(str(self.file or self.name), self.problems)
        return config

    def _check_model(self, config: RagConfig | None) -> None:
        """Check the model even if another key is wrong, so that all problems come at once."""
        section = self.data.get("embedding", {})
        if config is None and (not isinstance(section, dict) or section.get("backend") == "openai"):
            return
        keys = [key for key in ("model", "revision", "allow_download") if key in section]
        try:
            embedding = config.embedding if config else EmbeddingConfig(**{key: section[key] for key in keys})
            check_model(embedding)
        except ValidationError:
            return  # reported with the rest
        except ConfigError as error:
            self.report(("embedding", "model"), str(error), section.get("model"))
            return
        limit = token_limit(embedding)
        sizes: list[tuple[KeyPath, int]] = [(("chunking",), config.chunking.max_tokens)] if config else []
        for number, source in enumerate(config.sources if config else ()):
            if source.chunking:
                sizes.append((("sources", number, "chunking"), source.chunking.max_tokens))
        for path, max_tokens in sizes:
            if limit is not None and max_tokens > limit:
                expected = f"expected at most {limit}, which is what the embedding model reads"
                self.report((*path, "max_tokens"), expected, max_tokens)


def _is_section(key: str) -> bool:
    declared = RagConfig.model_fields.get(key)
    return declared is not None and section_of(declared.annotation) is not None
