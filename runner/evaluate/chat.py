"""A client for chat endpoints with OpenAI's protocol, and a transcript of every request and response."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mixlaw.errors import InputError


@dataclass(frozen=True)
class Endpoint:
    """A server of chat completions.

    Attributes:
        url: up to the version, such as http://localhost:8000/v1.
        model: name of the model there.
        key: environment variable that holds the API key; a local server often needs none.
        retries: retries of a request that the server did not answer, with growing pauses.
        seconds: limit on one answer.
        parallel: concurrent requests.
    """

    url: str
    model: str
    key: str = "OPENAI_API_KEY"
    retries: int = 6
    seconds: float = 300.0
    parallel: int = 8

    def __post_init__(self) -> None:
        """Keep secrets out of study.toml, transcripts and messages, none of which repeats them here.

        Raises:
            InputError: the url is none, or holds a user or a query, or `key` is no name of a variable.
        """
        try:
            address = urlsplit(self.url)
        except ValueError:
            raise InputError("the url of the endpoint is no URL: correct it") from None
        if "@" in address.netloc or address.query:
            raise InputError(
                f"the address of the endpoint at {address.hostname} holds a user or a query, which transcripts and "
                "messages would repeat; put the secret into an environment variable, and the variable's name into key"
            )
        if not re.fullmatch("[A-Z_][A-Z0-9_]*", self.key):
            raise InputError(
                "key is the name of an environment variable in capitals, such as OPENAI_API_KEY, not the secret; "
                "put that into the variable"
            )

    @property
    def secret(self) -> str:
        """The API key; empty where the variable is not set."""
        return os.environ.get(self.key, "")

    def said(self, error: Exception) -> str:
        """What a server says, which may repeat the key that it got."""
        return str(error).replace(self.secret, f"${self.key}") if self.secret else str(error)


@dataclass(frozen=True)
class Request:
    """A conversation for the model to continue.

    Attributes:
        messages: (role, text) in order; roles are system, user and assistant.
        options: other fields of the protocol: temperature, max_tokens, seed, stop, ...
    """

    messages: tuple[tuple[str, str], ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def body(self, model: str) -> dict[str, Any]:
        """The JSON body of the request."""
        messages = [{"role": role, "content": text} for role, text in self.messages]
        return {"model": model, "messages": messages, **self.options}


@dataclass(frozen=True)
class Reply:
    """The first choice of an answer, and why it ended ("stop": by itself, "length": at max_tokens)."""

    text: str
    finish: str


class Chat:
    """An endpoint with a transcript: a request that has an answer there is not sent again.

    A line of the transcript holds the url, the request and the response. To sample another answer to the same
    request, change `seed` in the options.
    """

    def __init__(self, endpoint: Endpoint, transcript: Path) -> None:
        """Open the transcript, which need not exist.

        Raises:
            InputError: the package `openai` is not installed, or a line of the transcript is damaged.
        """
        self.endpoint, self.transcript = endpoint, transcript
        self._client = _client(endpoint)
        self._known = _read(transcript)
        self._lock = threading.Lock()
        self._silent: InputError | None = None  # no answer after all retries: the endpoint is asked nothing more

    def ask(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Replies in the order of the requests, which are sent concurrently.

        Raises:
            InputError: the endpoint cannot be reached, does not know the model, or refuses key or request.
        """
        futures: dict[str, Future[Reply]] = {}
        pool = ThreadPoolExecutor(self.endpoint.parallel)
        try:
            bodies = [request.body(self.endpoint.model) for request in requests]
            keys = [_key(self.endpoint.url, body) for body in bodies]
            for key, body in zip(keys, bodies, strict=True):
                if key not in futures:
                    futures[key] = pool.submit(self._answer, key, body)
            for key in keys:
                yield futures[key].result()
        finally:  # also where the caller stops early: running requests finish and enter the transcript
            pool.shutdown(cancel_futures=True)

    def _answer(self, key: str, body: dict[str, Any]) -> Reply:
        if key not in self._known:
            if self._silent:
                raise self._silent
            began = time.time()
            response = self._post(body)
            line = {"key": key, "url": self.endpoint.url, "request": body, "response": response}
            self._keep({**line, "time": round(began, 3), "seconds": round(time.time() - began, 3)})
            self._known[key] = response
        return _reply(self._known[key])

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        import openai

        where = f"{self.endpoint.url} (model {self.endpoint.model!r})"
        try:
            completion = self._client.chat.completions.create(**body)
        except openai.APIConnectionError as error:
            self._silent = InputError(f"no answer from {where}: {error}; is the server running at that address?")
            raise self._silent from error
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise InputError(
                f"{where} refuses the key in ${self.endpoint.key}: {self.endpoint.said(error)}; set it"
            ) from error
        except openai.APIStatusError as error:
            said = self.endpoint.said(error)
            raise InputError(f"{where} refuses a request: {said}; correct the model, messages or options") from error
        response: dict[str, Any] = completion.model_dump(mode="json", exclude_none=True)
        return response

    def _keep(self, line: dict[str, Any]) -> None:
        with self._lock:
            self.transcript.parent.mkdir(parents=True, exist_ok=True)
            with self.transcript.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _client(endpoint: Endpoint) -> Any:
    try:
        from openai import OpenAI
    except ImportError as error:
        raise InputError("chat endpoints need the package openai; pip install 'mixlaw[train]'") from error
    key = endpoint.secret or "none"
    return OpenAI(base_url=endpoint.url, api_key=key, max_retries=endpoint.retries, timeout=endpoint.seconds)


def _key(url: str, body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps([url, body], sort_keys=True).encode()).hexdigest()[:24]


def _reply(response: dict[str, Any]) -> Reply:
    choice = response["choices"][0]
    return Reply(choice["message"].get("content") or "", choice.get("finish_reason") or "")


def _read(transcript: Path) -> dict[str, dict[str, Any]]:
    """Responses by key. A last line without its end, of a process that was killed, is cut off."""
    if not transcript.exists():
        return {}
    data = transcript.read_bytes()
    *lines, rest = data.split(b"\n")
    if rest:
        os.truncate(transcript, len(data) - len(rest))
    known = {}
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            known[row["key"]] = row["response"]
            _reply(row["response"])
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise InputError(f"{transcript}:{number} is damaged ({error}); delete that line") from error
    return known
