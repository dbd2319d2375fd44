"""What the program hands out is checked by the module, without the program."""

import contextlib
import io
import json
import os
import subprocess
import unittest

from common import BINARY, TrailTest
from kaizen_audit import check


class CheckTest(TrailTest):
    def run_program(self, *args, data=None):
        return subprocess.run(
            [BINARY, *args, "--log", self.log], input=data, capture_output=True, text=True, check=True, cwd=self.folder
        ).stdout

    def check(self, *args):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = check.main(list(args))
        return code, out.getvalue() + err.getvalue()

    def test_export_and_disclosure(self):
        key_file = os.path.join(self.folder, "audit.key")
        self.run_program("init", "--profile", "gdpr", "--key-file", key_file)
        events = "".join(
            json.dumps({"event_type": "TOOL_USE", "agent_id": "a", "action": "tool_use:x", "inputs": {"n": n},
                        "metadata": {"user_id": user}}) + "\n"
            for n, user in enumerate(["mia", "noah", "mia"])
        )
        index = json.loads(self.run_program("record", "--key-file", key_file, data=events).split("\n")[0])["index"]
        with open(self.log[: -len(".jsonl")] + ".trail/trail.json", encoding="utf-8") as file:
            vkey = json.load(file)["vkey"]
        export, one = os.path.join(self.folder, "mia.zip"), os.path.join(self.folder, "one.json")
        self.run_program("export-user", "mia", "--out", export, "--key-file", key_file)
        self.run_program("disclose", str(index), "--field", "/inputs", "--out", one, "--key-file", key_file)

        code, said = self.check(export, "--key", vkey)
        self.assertEqual(code, 0, said)
        self.assertIn("2 of 2 entries", said)
        code, said = self.check(one, "--key", vkey, "--show")
        self.assertEqual(code, 0, said)
        self.assertIn('"inputs":{"n":0}', said)
        self.assertNotIn("mia", said)

        with open(one, encoding="utf-8") as file:
            text = file.read()
        with open(one, "w", encoding="utf-8") as file:
            file.write(text.replace('"pointer":"/inputs"', '"pointer":"/metadata/user_id"'))
        code, said = self.check(one, "--key", vkey)
        self.assertEqual((code, "NOT PROVED" in said), (1, True), said)


if __name__ == "__main__":
    unittest.main()
