"""A real server of OpenAI's chat protocol over a small checkpoint, on loopback; and the making of such a checkpoint.

folder = memorised(tmp_path / "teacher", [([("user", "Add two numbers.")], "def add(a, b): ...")])
with serve(folder) as server:
    chat = Chat(Endpoint(server.url, "teacher"), tmp_path / "transcript.jsonl")
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from mixlaw.runner.corpora import tokenizer as bpe

Messages = Sequence[tuple[str, str]]

#: ChatML with the end of text in place of <|im_end|>.
TEMPLATE = (
    "{% for m in messages %}{{ m.role + ':\\n' + m.content + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:\\n' }}{% endif %}"
)


def memorised(folder: Path, dialogues: Sequence[tuple[Messages, str]]) -> Path:
    """A checkpoint of a hundred thousand parameters that gives these answers, word for word, and noise otherwise.

    Trained on the dialogues until greedy decoding repeats every answer.
    """
    return continuing(folder, [(_prompt(messages), answer) for messages, answer in dialogues])


def continuing(folder: Path, pairs: Sequence[tuple[str, str]]) -> Path:
    """The same for plain texts: a checkpoint that continues every prompt, as a document that begins with it."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    texts = [text for pair in pairs for part in pair for text in part.split(bpe.END_OF_TEXT)]
    bpe.save(bpe.train(texts, 1024), folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    prompts = [tokenizer(bpe.END_OF_TEXT + prompt)["input_ids"] for prompt, _ in pairs]
    answers = [tokenizer(answer)["input_ids"] + [tokenizer.eos_token_id] for _, answer in pairs]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=2048, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    _learn(model, prompts, answers)
    model.save_pretrained(folder)
    return folder


def _prompt(messages: Messages) -> str:
    told = [{"role": role, "content": text} for role, text in messages]
    return "".join(f"{m['role']}:\n{m['content']}{bpe.END_OF_TEXT}" for m in told) + "assistant:\n"


def _learn(model: Any, prompts: list[list[int]], answers: list[list[int]]) -> None:
    longest = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    inputs = torch.zeros(len(prompts), longest, dtype=torch.long)
    labels = torch.full_like(inputs, -100)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        inputs[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    for _ in range(2000):
        found = model(input_ids=inputs, labels=labels)
        right = found.logits[:, :-1].argmax(-1) == labels[:, 1:]
        if bool((right | (labels[:, 1:] == -100)).all()) and float(found.loss.detach()) < 0.1:
            return
        optimizer.zero_grad()
        found.loss.backward()
        optimizer.step()
    raise AssertionError(f"not memorised after 2,000 steps: loss {float(found.loss.detach()):.3f}")


@dataclass
class Server:
    """A running server.

    Attributes:
        url: for `Endpoint`.
        requests: bodies of all requests so far.
        failures: HTTP status codes with which the next requests are answered instead.
        key: where set, the only API key that is let in.
        most: requests that were under way at the same time, at most.
    """

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)
    key: str | None = None
    most: int = 0


@contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """Serve a checkpoint under the name of its folder, on a free port of loopback, until the block ends."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)  # ready for inference
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    told = Server(f"http://127.0.0.1:{server.server_address[1]}/v1")
    server.state = _State(folder.name, tokenizer, model, told)  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class _State:
    name: str
    tokenizer: Any
    model: Any
    told: Server
    lock: threading.Lock = field(default_factory=threading.Lock)
    under_way: int = 0

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """A chat completion, as the protocol wants it."""
        prompt = self.tokenizer.apply_chat_template(body["messages"], tokenize=False, add_generation_prompt=True)
        inputs = self.tokenizer(bpe.END_OF_TEXT + prompt, return_tensors="pt")
        temperature = body.get("temperature", 1.0)
        with self.lock:
            torch.manual_seed(body.get("seed", 0))
            made = self.model.generate(
                **inputs, max_new_tokens=body.get("max_tokens", 256), do_sample=temperature > 0,
                temperature=temperature or None, top_k=0 if temperature else None,
            )  # fmt: skip
        tokens = made[0, inputs["input_ids"].shape[1] :]
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        ended = int(tokens[-1]) == self.tokenizer.eos_token_id
        for stop in [body["stop"]] if isinstance(body.get("stop"), str) else body.get("stop") or []:
            text, found, _ = text.partition(stop)
            ended = ended or bool(found)
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop" if ended else "length"}
        used = {"prompt_tokens": inputs["input_ids"].shape[1], "completion_tokens": len(tokens)}
        used["total_tokens"] = sum(used.values())
        head = {"id": f"chatcmpl-{len(self.told.requests)}", "object": "chat.completion", "created": 0}
        return {**head, "model": self.name, "choices": [choice], "usage": used}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def state(self) -> _State:
        state: _State = self.server.state  # type: ignore[attr-defined]
        return state

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        """GET /v1/models."""
        self._send(200, {"object": "list", "data": [{"id": self.state.name, "object": "model"}]})

    def do_POST(self) -> None:
        """POST /v1/chat/completions."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        state = self.state
        with state.lock:
            state.told.requests.append(body)
            state.under_way += 1
            state.told.most = max(state.told.most, state.under_way)
            failure = state.told.failures.pop(0) if state.told.failures else 0
        try:
            self._send(*self._answer(body, failure))
        finally:
            with state.lock:
                state.under_way -= 1

    def _answer(self, body: dict[str, Any], failure: int) -> tuple[int, dict[str, Any]]:
        if self.path != "/v1/chat/completions":
            return _error(404, f"no such path {self.path}")
        if self.state.told.key and self.headers.get("Authorization") != f"Bearer {self.state.told.key}":
            return _error(401, f"incorrect API key {self.headers.get('Authorization', '').removeprefix('Bearer ')}")
        if failure:
            return _error(failure, "try again")
        if body.get("model") != self.state.name:
            return _error(404, f"the model {body.get('model')!r} does not exist")
        return 200, self.state.complete(body)

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (("Content-Type", "application/json"), ("Content-Length", str(len(data)))):
            self.send_header(name, value)
        if status in (429, 503):
            self.send_header("retry-after-ms", "10")
        self.end_headers()
        self.wfile.write(data)


def _error(status: int, message: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": {"message": message, "type": "invalid_request_error", "code": str(status)}}


@contextmanager
def refusing() -> Iterator[str]:
    """A server that refuses every request; its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refusal)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


class _Refusal(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_error(404)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""
