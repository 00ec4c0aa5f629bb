"""A client of control sockets that checks each line, its own and the server's, against the documented schema."""
import json
import os
import socket

import jsonschema

from vm import ROOT, check

with open(os.path.join(ROOT, "docs/control.schema.json"), encoding="utf-8") as page:
    SCHEMA = json.load(page)
LIMIT_S = 120
VALIDATORS = {kind: jsonschema.Draft202012Validator({**SCHEMA, "anyOf": [{"$ref": f"#/$defs/{kind}"}]})
              for kind in ("hello", "request", "answer", "event")}


def validate(line, kind):
    """Checks that LINE is one of KIND ("answer")."""
    for wrong in VALIDATORS[kind].iter_errors(line):
        check(False, f"not by the schema: {line}: {wrong.message}")


class Control:
    """A connection to the control socket at PATH."""

    def __init__(self, path, limit=LIMIT_S):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(limit)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")
        self.last = 0
        self.events, self.answers = [], {}
        self.hello = json.loads(self.file.readline())
        validate(self.hello, "hello")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def send(self, name, wrong=False, **arguments):
        """Sends a request, which is meant to be WRONG or is by the schema. Returns its number."""
        self.last += 1
        line = {"id": self.last, "request": name, **({"arguments": arguments} if arguments else {})}
        if name in SCHEMA["$defs"]["request"]["properties"]["request"]["enum"] and not wrong:
            validate(line, "request")
        self.socket.sendall(json.dumps(line).encode() + b"\n")
        return self.last

    def read(self):
        """Takes one line. False at the end."""
        text = self.file.readline()
        if not text:
            return False
        line = json.loads(text)
        if "event" in line:
            validate(line, "event")
            self.events.append(line)
        else:
            validate(line, "answer")
            self.answers[line["id"]] = line
        return True

    def answer(self, number):
        """Waits for answer NUMBER."""
        while number not in self.answers:
            check(self.read(), f"no answer {number}: the connection has ended")
        return self.answers.pop(number)

    def call(self, name, **arguments):
        """The result of a request, which must not fail."""
        answer = self.answer(self.send(name, **arguments))
        check("result" in answer, name, "failed:", answer)
        return answer["result"]

    def fails(self, code, name, **arguments):
        """Checks that a request fails with CODE."""
        answer = self.answer(self.send(name, wrong=True, **arguments))
        check(answer.get("error", {}).get("code") == code, name, arguments, answer)

    def wait_event(self, name):
        """Waits for the event NAME, and forgets those before it."""
        while True:
            while self.events:
                event = self.events.pop(0)
                if event["event"] == name:
                    return event
            check(self.read(), f"no event {name}: the connection has ended")
