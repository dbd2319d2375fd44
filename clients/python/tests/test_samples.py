"""The documented samples and the README's quick start, run as they stand."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from common import BINARY, TrailTest

import kaizen_audit

HERE = os.path.dirname(os.path.abspath(__file__))


def namespace():
    """A command that gives a program mounts of its own, where there is one."""
    for flags in (["--mount"], ["--mount", "--map-root-user"]):
        command = ["unshare", *flags, "--"]
        try:
            if subprocess.run([*command, "true"], capture_output=True, timeout=10).returncode == 0:
                return command
        except (OSError, subprocess.TimeoutExpired):
            pass
    return None


class Samples(unittest.TestCase):
    def test_the_documented_samples_run(self):
        """The samples write to /var/log and /tmp. They get both as folders of
        their own; where the system has no mount namespaces for us, these two
        paths are replaced in the text."""
        with tempfile.TemporaryDirectory(prefix="kaizen-audit-") as folder:
            for name in ("tmp/tests", "log"):
                os.makedirs(os.path.join(folder, name))
            shutil.copytree(os.path.dirname(kaizen_audit.__file__), os.path.join(folder, "tmp/kaizen_audit"))
            shutil.copy(os.path.join(HERE, "documented_samples.py"), os.path.join(folder, "tmp/tests"))
            shutil.copy(BINARY, os.path.join(folder, "tmp/tests/kaizen-audit"))
            root, command = "/tmp", namespace()
            python = os.path.realpath(sys.executable)  # a link may lie in what is hidden
            if command is None:
                root, command = os.path.join(folder, "tmp"), []
                sample = os.path.join(root, "tests/documented_samples.py")
                with open(sample, encoding="utf-8") as f:
                    text = f.read()
                with open(sample, "w", encoding="utf-8") as f:
                    f.write(text.replace("/var/log/", folder + "/log/").replace("/tmp/test-", root + "/test-"))
            else:
                mount = f"mount --bind {folder}/log /var/log && mount --bind {folder}/tmp /tmp && exec \"$@\""
                command = [*command, "sh", "-ec", mount, "sh"]
            done = subprocess.run(
                [*command, python, os.path.join(root, "tests/documented_samples.py")],
                env={
                    **os.environ, "PYTHONPATH": root, "PYTHONIOENCODING": "utf-8",
                    "KAIZEN_AUDIT_BIN": os.path.join(root, "tests/kaizen-audit"),
                    "KAIZEN_AUDIT_STATE": os.path.join(root, "state"),
                },
                capture_output=True, text=True, encoding="utf-8", timeout=60, cwd="/",
            )  # fmt: skip
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertIn("patient_record_read (45.2ms)", done.stdout)
            self.assertTrue(done.stdout.endswith("samples: ok\n"))


class Readme(TrailTest):
    def test_the_quick_start_works_when_pasted(self):
        with open(os.path.join(os.path.dirname(HERE), "README.md"), encoding="utf-8") as f:
            code = re.search(r"```python\n(.*?)```", f.read(), re.S).group(1)
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=self.folder, capture_output=True, text=True, timeout=60,
            env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(kaizen_audit.__file__))},
        )  # fmt: skip
        manager = self.manager()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"^20.*: tool_use:calculator \(45\.2ms\)\n")
        self.assertEqual(len(manager.audit_entries), 1)
