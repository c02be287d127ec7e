"""Writes the address of the repository wherever it belongs: `make set-repository URL=…`.

These are pyproject.toml, CITATION.cff and the notebooks, which then install from it and, if it is
on GitHub, can be opened in Colab. Another address replaces one that was written before.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main(url: str) -> None:
    """Writes the address into all files, after all of them have been read."""
    url = url.strip().rstrip("/").removesuffix(".git")
    if not re.fullmatch(r"https://[\w.-]+(/[\w.-]+){2,}", url):
        sys.exit(f"error: expected URL=https://HOST/OWNER/NAME, received {url!r}")
    pyproject, citation = ROOT / "pyproject.toml", ROOT / "CITATION.cff"
    written = {
        pyproject: _with_urls(pyproject.read_text(encoding="utf-8"), url),
        citation: _with_code(citation.read_text(encoding="utf-8"), url),
    }
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for number, cell in enumerate(notebook["cells"]):
            source = _with_requirements("".join(cell["source"]), url)
            if number == 0:
                source = _with_link(source, url, path.name)
            cell["source"] = source.splitlines(keepends=True)
        written[path] = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    for path, text in written.items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))


def _with_urls(text: str, url: str) -> str:
    line = f'Repository = "{url}"\n'
    text, found = re.subn(r"(?m)^Repository = .*\n", line, text)
    after = "[project.optional-dependencies]\n"
    return text if found else text.replace(after, f"[project.urls]\n{line}\n{after}")


def _with_code(text: str, url: str) -> str:
    text = re.sub(r"(?m)^repository-code: .*\n", "", text)
    return re.sub(r"(?m)^(license: .*\n)", rf'\1repository-code: "{url}"\n', text)


def _with_requirements(source: str, url: str) -> str:
    """Puts the address in the place of the clone, "..", or of another address."""
    pattern = r'"(?:\.\.|tokenlearner-keras)(\[[^]"]*\])(?: @ git\+[^"]*)?"'
    return re.sub(pattern, rf'"tokenlearner-keras\1 @ git+{url}"', source)


def _with_link(source: str, url: str, name: str) -> str:
    """Puts the link below the title; Colab opens what is on GitHub."""
    title, _, text = re.sub(r"\[Open in Colab\]\(.*\)\n\n", "", source).partition("\n\n")
    colab = url.replace("https://github.com/", "https://colab.research.google.com/github/")
    link = f"[Open in Colab]({colab}/blob/main/notebooks/{name})\n\n" if colab != url else ""
    return f"{title}\n\n{link}{text}"


if __name__ == "__main__":
    main(*sys.argv[1:] or [""])
