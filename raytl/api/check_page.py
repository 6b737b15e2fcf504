"""``raytl check --html``: the findings as pictures, on one page that needs no other file and no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from raytl.core.errors import UserError
from raytl.tasks.check_report import CheckReport
from raytl.tasks.checks import Look
from raytl.tasks.problems import Problem

_SIDE = 112  # pixels that a picture on the page has at most
_PER_CLASS = 6
_CLASSES = 60
_SUSPECTS = 60
_GROUPS = 40  # of copies
_IN_GROUP = 6
_LISTED = 300  # problems and damaged files

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2127; --soft: #5b6570; --line: #dde2e7; --paper: #fff; --card: #f6f8fa;
  --error: #b3261e; --warning: #7a5200; --info: #0b5c8a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #9aa5b1; --line: #343b43; --paper: #14181c;
  --card: #1d2329; --error: #ff9a90; --warning: #f0c060; --info: #79b8ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 20px 64px; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 8px; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 40px 0 4px; padding-top: 14px; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 18px 0 4px; overflow-wrap: anywhere; }
p { margin: 6px 0; max-width: 46rem; }
p, figcaption, .soft { color: var(--soft); }
p.lead { color: var(--ink); }
ul { margin: 8px 0; padding-left: 0; list-style: none; }
li { padding: 6px 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
li b { display: inline-block; min-width: 5rem; }
.error b { color: var(--error); } .warning b { color: var(--warning); } .info b { color: var(--info); }
.row { display: flex; flex-wrap: wrap; gap: 10px; margin: 8px 0; }
.group { border: 1px solid var(--line); background: var(--card); border-radius: 8px; padding: 8px; }
figure { margin: 0; width: 132px; }
img { display: block; max-width: 112px; max-height: 112px; min-width: 48px; image-rendering: auto; background: #8884; }
figcaption { font-size: .8rem; line-height: 1.35; overflow-wrap: anywhere; margin-top: 3px; }
figcaption strong { color: var(--ink); font-weight: 600; }
"""


def write_page(path: Path, look: Look) -> None:
    """Write the page. Raises OSError where that is not possible."""
    path.write_text(render(look), encoding="utf-8")


def render(look: Look) -> str:
    """The page as text."""
    report = look.report
    title = escape(f"raytl check: {report.path}")
    known = {name for pair in report.label_conflicts for name in pair}
    body = [
        f"<h1>{escape(report.path)}</h1>",
        f'<p class="lead">{escape(_summary(report))}</p>',
        _problems(report),
        _suspects(look),
        _copies(look, "One picture, two labels", [list(pair) for pair in report.label_conflicts]),
        _copies(look, "Exact copies", [group for group in report.exact_duplicates if not known & set(group)]),
        _copies(look, "Pictures that look the same", report.near_duplicates),
        _damaged(report),
        _classes(look),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body><main>\n" + "\n".join(filter(None, body)) + "\n"
        "</main></body></html>\n"
    )


def _summary(report: CheckReport) -> str:
    said = [f"{report.images:,} images" + (f" of {len(report.counts)} classes" if report.counts else "")]
    said += [report.layout] if report.layout else []
    said += [", ".join(f"{name} {count}" for name, count in report.splits.items())] if report.splits else []
    if report.width is not None and report.height is not None:
        said.append(f"typically {report.width.median} x {report.height.median} pixels")
    verdict = "A search would take them." if report.ok else "A search would refuse them as they are."
    return "; ".join(said) + ". " + verdict


def _problems(report: CheckReport) -> str:
    if not report.problems:
        return "<h2>Problems</h2><p>None found.</p>"
    items = "".join(_problem(problem, report.path) for problem in report.problems[:_LISTED])
    return f"<h2>Problems</h2><ul>{items}</ul>{_and_more(len(report.problems), _LISTED)}"


def _problem(problem: Problem, path: str) -> str:
    grade = problem.severity.value
    where = "" if problem.where == path else f" <span class=soft>({escape(problem.where.removeprefix(path))})</span>"
    return f'<li class="{grade}"><b>{grade}</b> {escape(problem.message.replace(path, ""))}{where}</li>'


def _suspects(look: Look) -> str:
    found = look.report.suspects or []
    if not found:
        return ""
    shown = [
        _figure(
            look,
            one.name,
            f"<strong>{escape(one.label)}</strong>, or rather <strong>{escape(one.fits)}</strong>?",
            alt=f"labelled {one.label}, looks like {one.fits}",
        )
        for one in found[:_SUSPECTS]
    ]
    return (
        f"<h2>Labels that are likely wrong ({len(found)})</h2>"
        "<p>A model that did not see the image, and the images most like it, say another label. The surest are first; "
        "some of them will be right as they are.</p>"
        f'<div class="row">{"".join(shown)}</div>{_and_more(len(found), _SUSPECTS)}'
    )


def _copies(look: Look, title: str, groups: Sequence[Sequence[str]]) -> str:
    if not groups:
        return ""
    across = sorted(groups, key=lambda group: len({look.labels.get(name) for name in group}) < 2)
    shown = []
    for group in across[:_GROUPS]:
        figures = "".join(_figure(look, name, _label(look, name)) for name in group[:_IN_GROUP])
        shown.append(f'<div class="row group">{figures}{_and_more(len(group), _IN_GROUP)}</div>')
    body = f'<div class="row">{"".join(shown)}</div>'
    return f"<h2>{title} ({len(groups)})</h2>{body}{_and_more(len(groups), _GROUPS)}"


def _damaged(report: CheckReport) -> str:
    if not report.corrupt:
        return ""
    items = "".join(
        f"<li>{escape(problem.where.removeprefix(report.path))} <span class=soft>{escape(problem.message)}</span></li>"
        for problem in report.corrupt[:_LISTED]
    )
    count = len(report.corrupt)
    return f"<h2>Files that cannot be read ({count})</h2><ul>{items}</ul>{_and_more(count, _LISTED)}"


def _classes(look: Look) -> str:
    by_class: dict[str, list[str]] = {}
    for name, label in look.labels.items():
        by_class.setdefault(label if label is not None else "", []).append(name)
    titled = "Classes" if look.report.counts else "Images"
    parts = []
    for label in sorted(by_class, key=lambda label: (label == "", label))[:_CLASSES]:
        names = by_class[label]
        step = max(1, len(names) // _PER_CLASS)
        figures = "".join(_figure(look, name, "") for name in names[::step][:_PER_CLASS])
        known = escape(label) if label else "without a label" if look.report.counts else "all"
        images = "1 image" if len(names) == 1 else f"{len(names):,} images"
        parts.append(f'<h3>{known} <span class="soft">({images})</span></h3><div class="row">{figures}</div>')
    return f"<h2>{titled}</h2>{''.join(parts)}{_and_more(len(by_class), _CLASSES)}" if parts else ""


def _label(look: Look, name: str) -> str:
    label = look.labels.get(name)
    return f"<strong>{escape(label)}</strong>" if label is not None else ""


def _figure(look: Look, name: str, caption: str, alt: str = "") -> str:
    """A picture with what is to be said of it, and its file's name."""
    label = look.labels.get(name)
    words = alt or (f"labelled {label}" if label is not None else "without a label")
    short = name.rpartition("/")[2]
    described = f'alt="{escape(f"{short}, {words}")}"'
    under = "<br>".join(filter(None, [caption, escape(short)]))
    image = f"<img {_source(look, name)} {described}>"
    return f'<figure title="{escape(name)}">{image}<figcaption>{under}</figcaption></figure>'


def _source(look: Look, name: str) -> str:
    try:
        image = look.items[name].open()
    except (UserError, KeyError):
        return 'src="data:,"'  # the file went away since
    image.thumbnail((_SIDE, _SIDE))
    if min(image.size) < 1:
        image = image.resize((max(1, image.width), max(1, image.height)))
    buffer = io.BytesIO()
    kind = "PNG" if max(image.size) <= 32 else "JPEG"
    image.save(buffer, kind, quality=80)
    coded = base64.b64encode(buffer.getvalue()).decode()
    return f'src="data:image/{kind.lower()};base64,{coded}" width="{image.width}" height="{image.height}"'


def _and_more(count: int, shown: int) -> str:
    return f"<p>and {count - shown:,} more</p>" if count > shown else ""
