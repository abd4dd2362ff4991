"""A sheet in a real browser: somebody clicks through it and saves a file that `terroir train rate take` reads."""

from __future__ import annotations

import html
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from terroir._proto.training.v1 import rating_pb2 as pb
from terroir.client.ratings import read_answers
from tests.unit.rating.rating_kit import made, sheets

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PERSON = """
<script>
const saved = [];
URL.createObjectURL = function (blob) { saved.push(blob); return "blob:kept"; };
HTMLAnchorElement.prototype.click = function () { saved.name = this.download; };
const save = function () {
  document.getElementById("save").requestSubmit();
  return document.getElementById("message").textContent;
};
const choose = function (name, value) {
  document.querySelector('input[name="' + name + '"][value="' + value + '"]').click();
};
const labels = JSON.parse(document.getElementById("told").textContent).labels;
const seen = { nameless: save() };
document.getElementById("rater").value = ' Ana "the eye", \\u5434 ';
seen.unanswered = save();
seen.missing = document.querySelectorAll(".card.missing").length;
labels.forEach(function (label, at) {
  choose("kind-" + label, at % 2 ? "real" : "generated");
  choose("brand-" + label, at % 3 ? "yes" : "no");
});
seen.done = document.getElementById("done").textContent;
seen.saved = save();
seen.name = saved.name;
seen.shown = Array.from(document.images).every(function (image) { return image.complete && image.naturalWidth > 0; });
saved[0].arrayBuffer().then(function (bytes) {
  seen.csv = btoa(String.fromCharCode.apply(null, new Uint8Array(bytes)));
  const out = document.createElement("pre");
  out.id = "outcome";
  out.textContent = JSON.stringify(seen);
  document.body.appendChild(out);
});
</script>
"""


def browsed(chromium: str, page: Path, folder: Path) -> str:
    """The page's document once its scripts have run."""
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    return done.stdout


def test_a_person_answers_in_the_browser_and_the_saved_file_is_read(tool: Callable[[str], str], tmp_path: Path) -> None:
    import base64

    from terroir.training.rating.forms import page

    chromium, house = tool("chromium"), sheets()
    sheet = made(3, 3, house)
    text = page(sheet.name, {item.label: house.picture(item) for item in sheet.items})
    (tmp_path / "sheet.html").write_text(text.replace("</body>", f"{PERSON}</body>"), encoding="utf-8")
    document = browsed(chromium, tmp_path / "sheet.html", tmp_path)
    found = re.search(r'<pre id="outcome">(.*?)</pre>', document, re.DOTALL)
    assert found, document[-2000:]
    seen = json.loads(html.unescape(found[1]))
    assert seen["nameless"] == "Say who you are first."
    assert seen["unanswered"].startswith("Still open: p01, p02") and seen["missing"] == 6
    assert seen["done"] == "6 of 6" and seen["shown"], "every picture is shown"
    assert seen["saved"] == f"Saved as {seen['name']}"
    assert re.fullmatch(rf"{sheet.id}-[\w-]+\.csv", seen["name"])
    path = tmp_path / seen["name"]
    path.write_bytes(base64.b64decode(seen["csv"]))
    (answers,) = read_answers(path)
    assert (answers.sheet, answers.rater) == (sheet.name, 'Ana "the eye", 吴')
    assert [rating.picture for rating in answers.ratings] == list(sheet.labels)
    taken = [rating.taken_for for rating in answers.ratings]
    assert taken == [pb.TAKEN_FOR_GENERATED, pb.TAKEN_FOR_REAL] * 3
    assert [rating.on_brand for rating in answers.ratings[:2]] == [pb.ON_BRAND_NO, pb.ON_BRAND_YES]
