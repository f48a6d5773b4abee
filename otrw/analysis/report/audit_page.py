"""The page of an audit: how many labels are probably wrong, and the worst of each class as pictures."""

import html
from collections.abc import Callable

import numpy as np

from otrw.analysis.audit import Audit, Found, few_shot, found, headline
from otrw.analysis.report.style import STYLE
from otrw.records.ledger import Record

OF_PLAN = "The score is the noise-aware plan's probability that the given label is wrong."
WITHIN_CLASS = (
    "Weights are over the mean of their class: a rare class weighs more as a whole, whichever of its labels are right."
)
OF_WEIGHT = (
    "The plan of this variant has the given label in its cost, so the score comes from the weights: 1 / (1 + weight / mean "
    "weight of the class). It orders the samples of one class and is no probability; variant ot_pooled_meta has one."
)


def audit_page(audit: Audit, record: Record, picture: Callable[[int], str] | None, top: int, files: str) -> str:
    """One HTML page that needs no network and no other file.

    Args:
        audit: the list.
        record: of the variant.
        picture: row in the data set -> data: URI; None where samples are no pictures.
        top: samples shown of each class.
        files: where the whole list is, for the reader.
    """
    title = f"Labels to check: {record.path.parent.name}, {record.path.name}"
    meaning = OF_PLAN if audit.by_plan else OF_WEIGHT
    body = [
        f"<p>{headline(audit)} {meaning} {WITHIN_CLASS} The whole list, worst first: {html.escape(files)}.</p>",
        _figures(audit, record),
        '<nav aria-label="classes">'
        + "".join(f'<a href="#class{label}">{html.escape(audit.class_names[label])}</a>' for label in np.unique(audit.given))
        + "</nav>",
    ]
    body += [_class(audit, int(label), picture, top) for label in np.unique(audit.given)]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<title>{html.escape(title)}</title>'
        f"<style>{STYLE}{AUDIT_STYLE}</style></head>\n<body><header><h1>{html.escape(title)}</h1></header>\n"
        f"<main>{''.join(body)}</main></body></html>\n"
    )


def _figures(audit: Audit, record: Record) -> str:
    members, meaning = few_shot(audit, record)
    rows = [("all classes", found(audit)), (meaning, found(audit, members))]
    if rows[0][1] is None:
        return ""
    lines = "".join(f'<tr><th scope="row">{name}</th>{_cells(figures)}</tr>' for name, figures in rows)
    heads = ("samples", "wrong", "precision", "recall", "average precision", "AUROC")
    top = "".join(f'<th scope="col" class="number">{head}</th>' for head in heads)
    note = "The right labels of this data set are known: how well the wrong ones are found, in percent."
    return (
        f'<p class="note">{note} Precision and recall are those of the labels that count as probably wrong.</p>'
        f'<div class="scroll"><table><thead><tr><th></th>{top}</tr></thead><tbody>{lines}</tbody></table></div>'
    )


def _cells(figures: Found | None) -> str:
    if figures is None:
        return '<td class="number">-</td>' * 6
    shares = [figures.precision, figures.recall, figures.average_precision, figures.auroc]
    texts = [str(figures.num_samples), str(figures.num_wrong)]
    texts += ["-" if share is None else f"{100 * share:.1f}" for share in shares]
    return "".join(f'<td class="number">{text}</td>' for text in texts)


def _class(audit: Audit, label: int, picture: Callable[[int], str] | None, top: int) -> str:
    members = np.flatnonzero(audit.given == label)  # the worst first, as the whole list
    name = html.escape(audit.class_names[label])
    number = int(audit.flagged[members].sum())
    stand_out = "probably wrong" if audit.by_plan else "of low weight"
    figures = "".join(_sample(audit, place, picture) for place in members[:top])
    return (
        f'<section class="class" id="class{label}"><h2>{name} <small>{number} of {len(members)} {stand_out}</small></h2>'
        f'<div class="worst">{figures}</div></section>'
    )


def _sample(audit: Audit, place: int, picture: Callable[[int], str] | None) -> str:
    given, suggested = audit.given[place], audit.suggested[place]
    identity = html.escape(str(audit.identity[place]))
    rather = f"rather {html.escape(audit.class_names[suggested])}" if suggested != given else "no other class suggested"
    kind = ' class="suspect"' if audit.flagged[place] else ""
    truth = ""
    if audit.true is not None:
        right = "right" if audit.true[place] == given else html.escape(audit.class_names[audit.true[place]])
        truth = f'<span class="truth">really {right}</span>'
    image = ""
    if picture is not None:
        image = f'<img loading="lazy" src="{picture(int(audit.row[place]))}" alt="{identity}">'
    return (
        f"<figure{kind}>{image}<figcaption><b>{rather}</b>{truth}<span>score {audit.score[place]:.2f}, weight "
        f'{audit.relative[place]:.2g}</span><span class="identity" title="{identity}">{identity}</span></figcaption></figure>'
    )


AUDIT_STYLE = """
h2 small { font-weight: normal; opacity: .7; font-size: .8em }
.worst { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(9rem, 46%), 1fr)); gap: .7rem }
.worst figure { width: auto; border: 3px solid var(--line); padding: .3rem; min-width: 0 }
.worst figure.suspect { border-color: var(--wrong) }
.worst img { aspect-ratio: 1; object-fit: contain; background: var(--soft) }
.worst figcaption { font-size: .8rem; text-align: left; line-height: 1.35 }
.worst figcaption > * { display: block } .truth { font-weight: 600 }
.identity { opacity: .7; overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
"""
